"""`sightstream replay` on a real Kafka: what it takes, what it says, and how it is stopped."""

import json
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from infra.access import Role, acls
from infra.commands.replay import command
from infra.settings import Settings
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.models import ModelVersion, Stage
from schemas.records import ImageRef
from schemas.topics import Topics
from streams.replay_lane import REPLAY_OF
from streams.retry_headers import Headers
from tests.support.deliveries import eventually
from tests.support.kafka import create_topics, delete_topics, read_topic, topic_names
from tests.support.security import SecureKafka

pytestmark = pytest.mark.kafka

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
Replay = Callable[..., Result]


@pytest.fixture
def replay(connection: KafkaConnection, topics: Topics, tmp_path: Path) -> Replay:
    """Runs the command in this process."""
    values = {
        "kafka.bootstrap": connection.bootstrap,
        "kafka.prefix": topics.prefix,
        "state_dir": str(tmp_path / "state"),
        "replay.save_every_s": 0.1,
        "replay.settle_s": 0.1,
    }
    return lambda *arguments: CliRunner().invoke(command, arguments, obj=Settings().overriding(values))


@pytest.fixture
def source(connection: KafkaConnection, topics: Topics) -> str:
    """A topic of two partitions for references of the past."""
    name = f"{topics.prefix}history"
    admin = AdminClient({**connection.librdkafka(), "log_level": 0})
    admin.create_topics([NewTopic(name, num_partitions=2)], operation_timeout=30)[name].result(30)
    return name


class Past:
    """Writes references with the timestamps of long ago: one a minute and partition, from the beginning of 2026 on."""

    def __init__(self, connection: KafkaConnection, codec: Codec, topic: str) -> None:
        self._producer = Producer({**connection.librdkafka(), "log_level": 0})
        self._codec, self._topic = codec, topic

    def put(self, refs: Sequence[ImageRef], partition: int, headers: Headers = ()) -> None:
        for minute, ref in enumerate(refs):
            stamp = BEGINNING + timedelta(minutes=minute)
            self.put_value(self._codec.encode(ref), partition, stamp, headers)
        assert self._producer.flush(30) == 0

    def put_value(
        self, value: bytes | None, partition: int, stamp: datetime = BEGINNING, headers: Headers = ()
    ) -> None:
        milliseconds = round(stamp.timestamp() * 1000)
        self._producer.produce(
            self._topic, value, b"k", partition, timestamp=milliseconds, headers=list(headers) or None
        )
        assert self._producer.flush(30) == 0


@pytest.fixture
def past(connection: KafkaConnection, codec: Codec, source: str) -> Past:
    return Past(connection, codec, source)


def refs(count: int, name: str = "image") -> list[ImageRef]:
    return [
        ImageRef(id=f"{name}-{at}", uri=f"file:///{name}-{at}.jpg", key="k", attributes={"parity": str(at % 2)})
        for at in range(count)
    ]


def sent(connection: KafkaConnection, codec: Codec, topics: Topics) -> list[str]:
    return [codec.decode(message.value(), ImageRef).id for message in read_topic(connection, topics.bulk)]


def test_it_takes_what_lies_between_two_bounds_and_is_asked_for(
    replay: Replay, past: Past, source: str, connection: KafkaConnection, codec: Codec, topics: Topics
) -> None:
    past.put(refs(10, "a"), 0)
    past.put([*refs(6, "b"), ImageRef(id="theirs", uri="file:///t", tenant="other", batch_id="b7")], 1)

    def counted(*arguments: str) -> dict[str, int]:
        said = replay("--topic", source, "--model", "yolo@3", "--dry-run", "--json", *arguments)
        assert said.exit_code == 0, said.output
        plan = json.loads(said.stdout)
        assert plan["references"] == sum(one["references"] for one in plan["ranges"].values())
        return {partition: one["references"] for partition, one in plan["ranges"].items()}

    minute = "2026-01-01T00:0{}".format
    assert counted() == {"0": 10, "1": 7}
    assert counted("--from", minute(5)) == {"0": 5, "1": 2}
    assert counted("--from", minute(2), "--to", minute(4)) == {"0": 2, "1": 2}
    assert counted("--from", "1h") == {}
    assert counted("--from", "0:7") == {"0": 3}
    assert counted("--from", "0:2,1:1", "--to", "0:5,1:99") == {"0": 3, "1": 6}
    assert counted("--to", "0:4") == {"0": 4, "1": 7}
    assert counted("--tenant", "other") == {"0": 0, "1": 1}
    assert counted("--batch-id", "b7") == {"0": 0, "1": 1}
    assert counted("--filter", "parity=1") == {"0": 5, "1": 3}
    assert topic_names(connection) >= {topics.bulk}
    assert read_topic(connection, topics.bulk) == read_topic(connection, topics.replays) == []

    no_such = replay("--topic", source, "--model", "yolo@3", "--from", "5:0")
    assert "has no partition 5" in str(no_such.exception)
    done = replay("--topic", source, "--model", "yolo@3", "--filter", "parity=1", "--id", "odd", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["state"], summary["sent"], summary["references"]) == ("completed", 8, 8)
    assert sorted(sent(connection, codec, topics)) == ["a-1", "a-3", "a-5", "a-7", "a-9", "b-1", "b-3", "b-5"]
    again = replay("--topic", source, "--model", "yolo@3", "--id", "odd")
    assert "there is a replay 'odd'" in str(again.exception)
    check_list(replay)


def check_list(replay: Replay) -> None:
    listed = replay("list")
    assert "odd" in listed.stdout
    assert "8/8  completed" in listed.stdout
    status = json.loads(replay("status", "odd", "--json").stdout)
    assert (status["state"], status["sent"], status["model"]) == ("completed", 8, "yolo@3")
    assert "does not run" in str(replay("stop", "odd").exception)
    assert "no replay 'even'" in str(replay("resume", "even").exception)
    looked_back = replay("resume", "odd", "--json")
    assert json.loads(looked_back.stdout)["sent_now"] == 0


def test_copies_unreadable_records_and_other_replays_are_left_out(
    replay: Replay, past: Past, source: str, connection: KafkaConnection, codec: Codec, topics: Topics
) -> None:
    original = refs(2)
    past.put(original, 0)

    def retried(offset: int) -> Headers:
        named = {"topic": source, "partition": 0, "offset": offset, "timestamp": 0}
        origin = [(f"retry.original.{name}", str(value).encode()) for name, value in named.items()]
        return [("retry.attempt", b"1"), *origin]

    past.put([original[1]], 0, retried(1))
    past.put_value(b"\x00\x00\x00\x00\x01broken", 0)
    past.put_value(None, 0)
    past.put([ImageRef(id="copy", uri="file:///c", replay_id="r0")], 0)
    said = replay("--topic", source, "--model", "yolo@3", "--json")
    assert said.exit_code == 0, said.output
    assert "2 records cannot be read" in said.stderr
    assert sent(connection, codec, topics) == ["image-0", "image-1"]
    later = replay("--topic", source, "--model", "yolo@3", "--from", "0:2", "--json")
    assert json.loads(later.stdout)["sent"] == 1, "the copy stands for what lies outside"
    headers = [dict(message.headers())[REPLAY_OF].split()[1] for message in read_topic(connection, topics.bulk)]
    assert headers == [b"0:0", b"0:1", b"0:2"]


def test_it_is_stopped_from_elsewhere_and_goes_on(
    replay: Replay, past: Past, source: str, connection: KafkaConnection, codec: Codec, topics: Topics
) -> None:
    past.put(refs(60), 0)
    results: list[Result] = []
    slow = ("--topic", source, "--model", "yolo@3", "--id", "r1", "--rate", "10", "--json")
    thread = threading.Thread(target=lambda: results.append(replay(*slow)))
    thread.start()
    eventually(lambda: len(read_topic(connection, topics.bulk)) > 3, "some are sent", 60, pause_s=0.2)
    held = replay("resume", "r1")
    assert "another process is at replay 'r1'" in str(held.exception)
    assert replay("stop", "r1").exit_code == 0
    thread.join(60)
    (result,) = results
    assert result.exit_code == 1
    assert "to go on: sightstream replay resume r1" in result.stderr
    stopped = json.loads(result.stdout)
    assert (stopped["state"], stopped["ok"]) == ("stopped", False)
    assert len(sent(connection, codec, topics)) == stopped["sent"] < 60
    assert f"{stopped['sent']}/60  stopped" in replay("list").stdout
    on = json.loads(replay("resume", "r1", "--json").stdout)
    assert (on["ok"], on["sent"], on["sent_now"]) == (True, 60, 60 - stopped["sent"])
    assert sent(connection, codec, topics) == [ref.id for ref in refs(60)]


def test_what_the_log_lost_since_the_manifest_is_told(
    replay: Replay, past: Past, source: str, connection: KafkaConnection, topics: Topics
) -> None:
    past.put(refs(40), 0)
    results: list[Result] = []
    slow = ("--topic", source, "--model", "yolo@3", "--id", "r1", "--rate", "5", "--json")
    thread = threading.Thread(target=lambda: results.append(replay(*slow)))
    thread.start()
    eventually(lambda: len(read_topic(connection, topics.bulk)) > 1, "some are sent", 60, pause_s=0.2)
    assert replay("stop", "r1").exit_code == 0
    thread.join(60)
    delete_topics(connection, [source])
    eventually(lambda: source not in topic_names(connection), "the topic is gone")
    admin = AdminClient({**connection.librdkafka(), "log_level": 0})
    admin.create_topics([NewTopic(source, num_partitions=2)], operation_timeout=30)[source].result(30)
    past.put(refs(40, "others"), 0)
    on = replay("resume", "r1", "--json")
    assert on.exit_code == 1
    assert "was the topic made anew?" in on.stderr


def test_the_model_is_pinned_to_a_version_of_the_registry(
    replay: Replay, past: Past, source: str, topics: Topics, publisher: Publisher, connection: KafkaConnection
) -> None:
    past.put(refs(1), 0)
    unknown = replay("--topic", source, "--model", "yolo@stable", "--dry-run")
    assert "a replay takes NAME@VERSION" in str(unknown.exception)
    version = ModelVersion(name="yolo", version="7", stage=Stage.STABLE)
    publisher.put(topics.models, version.reference, version).result()
    for asked in ("yolo", "yolo@stable", "yolo@7"):
        said = replay("--topic", source, "--model", asked, "--dry-run", "--json")
        assert json.loads(said.stdout)["model"] == "yolo@7"
    assert "yolo@8" in str(replay("--topic", source, "--model", "yolo@8", "--dry-run").exception)
    taken = replay("--topic", source, "--model", "yolo", "--into", topics.bulk)
    assert "is not for results" in str(taken.exception)
    into = f"{topics.prefix}trial"
    done = replay("--topic", source, "--model", "yolo", "--into", into, "--notify", "--json")
    assert done.exit_code == 0, done.output
    assert into in topic_names(connection)
    (message,) = read_topic(connection, topics.bulk)
    ref = publisher.codec.decode(message.value(), ImageRef)
    assert (ref.model, ref.into, ref.silent) == ("yolo@7", into, False)


def test_usage_errors(replay: Replay) -> None:
    for arguments in (
        (),
        ("--model", "m@1", "--from", "soon"),
        ("--model", "m@1", "--from", "0:1,0:2"),
        ("--model", "m@1", "--id", "a b"),
        ("--model", "m@1", "--filter", "x"),
        ("--model", "m@1", "--rate", "0"),
    ):
        assert replay(*arguments).exit_code == 2, arguments


def test_a_replayer_needs_no_more_than_its_acls(secure_kafka: SecureKafka, codec: Codec, tmp_path: Path) -> None:
    topics = Topics(prefix=f"p{threading.get_native_id()}.")
    admin = secure_kafka.scram("admin")
    create_topics(admin, topics)
    try:
        secure_kafka.allow(acls(Role.REPLAYER, "redriver", topics, "sightstream"))
        with Publisher(admin, codec, topics) as publisher:
            for ref in refs(5):
                publisher.publish(ref).result(30)
        connection = secure_kafka.scram("redriver")
        values = {"kafka.bootstrap": connection.bootstrap, "kafka.prefix": topics.prefix, "state_dir": str(tmp_path)}
        values |= {f"kafka.security.{name}": value for name, value in connection.security.items()}
        arguments = ("--model", "yolo@3", "--id", "r1", "--yield-to-online", "--json")
        done = CliRunner().invoke(command, arguments, obj=Settings().overriding(values))
        assert done.exit_code == 0, done.output or done.exception
        assert len(read_topic(admin, topics.bulk)) == 5
    finally:
        delete_topics(admin, [topic.name for topic in topics.catalogue()])
