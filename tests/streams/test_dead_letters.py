"""Dead letters on a real Kafka: found by what one knows of them, and put back once, with their ids."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from infra.commands.dead_letters import command
from infra.settings import Settings
from producers.publisher import Publisher, PublisherPolicy
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import Reason, RejectedError
from schemas.records import DeadLetter, ImageRef, Lane
from schemas.topics import Topics
from streams.dead_letters import REDRIVE_OF, DeadLetters, Filter, Place
from streams.failures import Failed, FailureRouter
from streams.retry_headers import Headers, Origin, RetryState
from tests.support.data import ROOT
from tests.support.kafka import read_topic

pytestmark = pytest.mark.kafka

MIDNIGHT_MS = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Record:
    """A record as a worker read it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int = 0
    offset: int = 5
    timestamp: int = 1_000


@pytest.fixture
def bury(publisher: Publisher) -> Callable[..., None]:
    """Dead-letters a record as the pipeline does."""

    def run(record: Record, reason: Reason = Reason.IMAGE_CORRUPT, at_ms: int = MIDNIGHT_MS) -> None:
        failed = Failed(record, RejectedError(reason, "torn\nfile"), "decode")
        FailureRouter(publisher, "g", lambda: at_ms).send(failed, lambda *_: None)
        publisher.flush(30)

    return run


@pytest.fixture
def letters(connection: KafkaConnection, codec: Codec, topics: Topics) -> DeadLetters:
    return DeadLetters(connection, codec, topics)


@pytest.fixture
def cli(connection: KafkaConnection, topics: Topics) -> Callable[..., Result]:
    settings = Settings().overriding({"kafka.bootstrap": connection.bootstrap, "kafka.prefix": topics.prefix})

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(command, arguments, obj=settings)

    return run


def record(publisher: Publisher, image_id: str, lane: Lane = Lane.ONLINE, headers: Headers = (), **said: str) -> Record:
    ref = ImageRef(id=image_id, uri="s3://b/k", lane=lane, **said)  # type: ignore[arg-type]
    return Record(publisher.topics.lane(lane), image_id.encode(), publisher.codec.encode(ref), headers)


def test_letters_are_found_by_code_time_image_and_batch(
    publisher: Publisher, letters: DeadLetters, bury: Callable[..., None]
) -> None:
    bury(record(publisher, "a", batch_id="b1"), Reason.IMAGE_CORRUPT, MIDNIGHT_MS)
    bury(record(publisher, "b", batch_id="b1"), Reason.IMAGE_NOT_FOUND, MIDNIGHT_MS + 60_000)
    bury(record(publisher, "c", batch_id="b2"), Reason.IMAGE_NOT_FOUND, MIDNIGHT_MS + 120_000)
    minute = datetime(2026, 3, 1, 0, 1, tzinfo=UTC)

    def found(wanted: Filter) -> str:
        return "".join(entry.letter.image_id for entry in letters.find(wanted))

    assert found(Filter()) == "abc"
    assert found(Filter(codes=frozenset({"image_not_found"}))) == "bc"
    assert found(Filter(since=minute)) == "bc"
    assert found(Filter(until=minute)) == "a"
    assert found(Filter(since=minute, until=minute + timedelta(minutes=1))) == "b"
    assert found(Filter(image_ids=frozenset({"a", "c"}))) == "ac"
    assert found(Filter(batch_id="b1", codes=frozenset({"image_not_found"}))) == "b"
    assert found(Filter(limit=2)) == "ab"
    assert found(Filter(places=frozenset({Place(0, 2)}))) == "c"


def test_an_empty_topic_and_rubbish_in_it_stop_nobody(
    publisher: Publisher, letters: DeadLetters, topics: Topics, bury: Callable[..., None]
) -> None:
    assert list(letters.find(Filter())) == []
    for value in (b"rubbish", None):
        publisher.send(topics.dead_letters, b"k", value, lambda *_: None, [("redriven", b"x")])
    bury(record(publisher, "a"))
    unreadable: list[Place] = []
    found = list(letters.find(Filter(), lambda place, _: unreadable.append(place)))
    assert [entry.letter.image_id for entry in found] == ["a"]
    assert unreadable == [Place(0, 0), Place(0, 1)]


def test_letters_of_an_aborted_transaction_are_not_there(
    connection: KafkaConnection, publisher: Publisher, letters: DeadLetters, topics: Topics, bury: Callable[..., None]
) -> None:
    bury(record(publisher, "a"))
    producer = Producer({**connection.librdkafka(), "transactional.id": topics.prefix})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topics.dead_letters, publisher.codec.encode(DeadLetter(code="x", message="", stage="y")))
    producer.flush(30)
    producer.abort_transaction(30)
    assert [entry.letter.image_id for entry in letters.find(Filter())] == ["a"]


def test_a_redriven_image_keeps_bytes_key_and_id_and_its_tries_begin_anew(
    publisher: Publisher,
    letters: DeadLetters,
    connection: KafkaConnection,
    codec: Codec,
    topics: Topics,
    bury: Callable[..., None],
) -> None:
    state = RetryState(
        origin=Origin(topics.bulk, 3, 7, 1_000), attempt=2, others=(("trace", b"1"), (REDRIVE_OF, b"old"))
    )
    step = state.next(Reason.FETCH_TIMEOUT, 2_000, 0, topics)
    assert step is not None
    original = record(publisher, "a", Lane.BULK, step[1])
    bury(original)
    (entry,) = letters.find(Filter())
    assert (entry.letter.source_topic, entry.letter.source_offset, entry.letter.attempts) == (topics.bulk, 7, 4)

    assert letters.redrive([entry], publisher).sent == [entry.place]
    (message,) = read_topic(connection, topics.bulk)
    assert (message.value(), message.key()) == (original.value, original.key)
    assert message.headers() == [("trace", b"1"), (REDRIVE_OF, f"{topics.dead_letters}:0:0".encode())]
    assert RetryState.from_headers(message.headers(), Origin(topics.bulk, 0, 0, 0)).attempt == 0
    assert codec.decode(message.value(), ImageRef).id == "a"


def test_a_letter_is_redriven_once_whoever_asks_unless_again(
    publisher: Publisher, letters: DeadLetters, connection: KafkaConnection, topics: Topics, bury: Callable[..., None]
) -> None:
    for image_id in "abc":
        bury(record(publisher, image_id))
    rehearsed = letters.redrive(letters.find(Filter()), publisher, dry_run=True)
    assert len(rehearsed.sent) == 3
    assert read_topic(connection, topics.online) == []

    assert len(letters.redrive(letters.find(Filter(limit=2)), publisher).sent) == 2
    second = letters.redrive(letters.find(Filter()), publisher)
    assert (second.sent, second.before) == ([Place(0, 2)], [Place(0, 0), Place(0, 1)])
    assert [entry.redriven for entry in letters.find(Filter())] == [True, True, True]
    assert len(read_topic(connection, topics.online)) == 3
    again = letters.redrive(letters.find(Filter(image_ids=frozenset("a"))), publisher, again=True)
    assert again.sent == [Place(0, 0)]
    assert len(read_topic(connection, topics.online)) == 4


def test_a_letter_that_comes_during_a_redrive_is_left_for_the_next(
    publisher: Publisher, letters: DeadLetters, bury: Callable[..., None]
) -> None:
    bury(record(publisher, "a"))
    found = letters.find(Filter())
    bury(record(publisher, "b"))
    assert len(letters.redrive(found, publisher).sent) == 1


def test_what_was_never_on_a_lane_cannot_be_redriven(
    publisher: Publisher, letters: DeadLetters, cli: Callable[..., Result], topics: Topics, bury: Callable[..., None]
) -> None:
    bury(Record(topics.detections, b"k", b"rubbish"), Reason.AVRO_UNREADABLE)
    bury(Record(topics.online, b"k", None), Reason.AVRO_UNREADABLE)
    done = letters.redrive(letters.find(Filter()), publisher)
    assert done.sent == []
    assert "no lane" in done.impossible[Place(0, 0)]
    assert "not kept" in done.impossible[Place(0, 1)]
    told = cli("redrive", "--all")
    assert told.exit_code == 1
    assert told.stdout == "redriven: 0, redriven before: 0, not possible: 2\n"


def test_a_record_that_fits_on_no_lane_keeps_no_other_from_being_redriven(
    connection: KafkaConnection, publisher: Publisher, letters: DeadLetters, codec: Codec, bury: Callable[..., None]
) -> None:
    for image_id in ("a", "large", "c"):
        bury(record(publisher, image_id, key="x" * (5_000 if image_id == "large" else 1)))
    with Publisher(connection, codec, publisher.topics, PublisherPolicy(max_record_bytes=3_000)) as narrow:
        done = letters.redrive(letters.find(Filter()), narrow)
    assert (len(done.sent), len(done.impossible)) == (2, 1)
    found = {entry.letter.image_id: entry for entry in letters.find(Filter())}
    assert {image_id: entry.redriven for image_id, entry in found.items()} == {"a": True, "large": False, "c": True}
    assert "does not fit" in done.impossible[found["large"].place]


@pytest.mark.kill
def test_killed_before_the_marker_it_is_redriven_again_under_the_same_id(
    connection: KafkaConnection,
    publisher: Publisher,
    letters: DeadLetters,
    codec: Codec,
    topics: Topics,
    bury: Callable[..., None],
) -> None:
    bury(record(publisher, "a"))
    environment = {
        **os.environ,
        "SIGHTSTREAM_KAFKA_BOOTSTRAP": connection.bootstrap,
        "SIGHTSTREAM_KAFKA_PREFIX": topics.prefix,
        "SIGHTSTREAM_FAILPOINT": "redrive.sent",
    }
    arguments = [sys.executable, "-m", "infra.cli", "dead-letters", "redrive", "--all"]
    killed = subprocess.run(arguments, cwd=ROOT, env=environment, check=False, timeout=90)
    assert killed.returncode == -signal.SIGKILL
    assert len(letters.redrive(letters.find(Filter()), publisher).sent) == 1
    ids = [codec.decode(message.value(), ImageRef).id for message in read_topic(connection, topics.online)]
    assert ids == ["a", "a"]


def test_the_commands_list_show_and_redrive(
    publisher: Publisher,
    cli: Callable[..., Result],
    connection: KafkaConnection,
    topics: Topics,
    bury: Callable[..., None],
) -> None:
    bury(record(publisher, "a", batch_id="b1"))
    bury(record(publisher, "b"), Reason.IMAGE_NOT_FOUND)
    listed = cli("list", "--code", "image_corrupt", "--since", "2026-03-01", "--until", "2026-03-01T01:00+00:00")
    assert listed.stdout == "0:0  2026-03-01T00:00:00Z  image_corrupt  a  decode: torn file\n"
    assert listed.stderr == "1 dead letters\n"
    assert cli("list", "--since", "1s").stdout == ""
    first, second = (json.loads(line) for line in cli("list", "--json").stdout.splitlines())
    assert (first["image_id"], first["place"], first["redriven"]) == ("a", "0:0", False)
    assert (second["code"], "value" in second) == ("image_not_found", False)

    shown = json.loads(cli("show", "0").stdout)
    assert shown["reference"]["batch_id"] == "b1"
    assert base64.b64decode(shown["value"]) == record(publisher, "a", batch_id="b1").value
    assert cli("show", "0:99").exit_code == 1
    assert cli("show", "x").exit_code == 2

    assert cli("redrive").exit_code == 2
    assert cli("redrive", "--at", "0:1", "--dry-run").stdout.startswith("would redrive: 1,")
    assert cli("redrive", "--at", "0:1").stdout == "redriven: 1, redriven before: 0, not possible: 0\n"
    assert cli("redrive", "--all").stdout == "redriven: 1, redriven before: 1, not possible: 0\n"
    assert cli("list").stdout.count("(redriven)") == 2
    assert len(read_topic(connection, topics.online)) == 2
