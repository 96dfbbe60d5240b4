"""Looking back on a real Kafka: all that topics hold, and a diff of it from the command line."""

import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from click.testing import CliRunner

from infra.access import Role, acls
from infra.commands.diff import command
from infra.settings import Settings
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError
from schemas.records import DetectionResult
from schemas.replays import ReplayManifest
from schemas.topics import Topics
from streams.past_results import PastResults, Unread
from tests.support.diffs import CAT, DOG, found
from tests.support.kafka import create_topics, delete_topics
from tests.support.security import SecureKafka

pytestmark = pytest.mark.kafka


@pytest.fixture
def send(publisher: Publisher) -> Callable[..., None]:
    def run(topic: str, records: Sequence[DetectionResult | ReplayManifest | bytes]) -> None:
        for number, record in enumerate(records):
            value = record if isinstance(record, bytes) else publisher.codec.encode(record)
            publisher.send(topic, str(number).encode(), value, lambda *_: None)
        publisher.flush(60)

    return run


def test_everything_up_to_the_end_is_read(
    connection: KafkaConnection, codec: Codec, topics: Topics, send: Callable[..., None]
) -> None:
    send(topics.detections, [*(found(f"i{n}", [DOG]) for n in range(50)), b"no result"])
    send(topics.shadow, [found(f"s{n}", []) for n in range(5)])
    past, unread = PastResults(connection, codec, "g.diff"), list[Unread]()
    asked = [topics.detections, topics.shadow, "not-there"]
    assert past.present(asked) == asked[:2]
    batches = list(past.read(asked[:2], unread=unread.append))
    images = [image for batch in batches for image in batch.column("image_id").to_pylist()]
    assert sorted(images) == sorted([*(f"i{n}" for n in range(50)), *(f"s{n}" for n in range(5))])
    assert [one.topic for one in unread] == [topics.detections]
    with pytest.raises(ConfigurationError, match="not-there"):
        list(past.read(["not-there"]))


def test_what_is_long_past_need_not_be_read(
    connection: KafkaConnection, codec: Codec, topics: Topics, send: Callable[..., None]
) -> None:
    one = found("a", [DOG])
    send(topics.detections, [one])
    past = PastResults(connection, codec, "g.diff")
    for since in (one.completed_at, one.completed_at - timedelta(days=1)):
        assert sum(batch.num_rows for batch in past.read([topics.detections], since)) == 1


def test_replays_and_rollouts_are_compared_where_their_results_are(
    connection: KafkaConnection, topics: Topics, send: Callable[..., None]
) -> None:
    into = f"{topics.prefix}detections.shadow"
    send(topics.replays, [ReplayManifest(id="r-2", into=into)])
    send(topics.detections, [found(f"i{n}", [DOG], "1", replay_id="r-1", rollout="x", arm="stable") for n in range(10)])
    send(into, [found(f"i{n}", [CAT], "2", replay_id="r-2", rollout="x", arm="shadow") for n in range(10)])
    settings = Settings().overriding({"kafka.bootstrap": connection.bootstrap, "kafka.prefix": topics.prefix})
    for sides in (["r-1", "r-2"], ["rollout:x:stable", "rollout:x:candidate"], ["yolov8n@1", "yolov8n@2"]):
        done = CliRunner().invoke(command, [*sides, "--fail-on", "reclassified>99%"], obj=settings)
        assert done.exit_code == 1, done.output
        assert "failed: reclassified>99%: reclassified is 100.0000%" in done.output


def test_who_compares_needs_no_more_than_its_acls(secure_kafka: SecureKafka, codec: Codec) -> None:
    topics, admin = Topics(prefix=f"d{uuid.uuid4().hex[:10]}."), secure_kafka.scram("admin")
    create_topics(admin, topics)
    try:
        secure_kafka.allow(acls(Role.COMPARER, "awaiter", topics, "sightstream"))
        with Publisher(admin, codec, topics) as publisher:
            for topic, version in ((topics.detections, "1"), (topics.shadow, "2")):
                value = codec.encode(found("a", [DOG], version, replay_id=f"r-{version}"))
                publisher.send(topic, b"a", value, lambda *_: None)
            publisher.flush(60)
        connection = secure_kafka.scram("awaiter")
        values = {"kafka.bootstrap": connection.bootstrap, "kafka.prefix": topics.prefix}
        values |= {f"kafka.security.{name}": value for name, value in connection.security.items()}
        done = CliRunner().invoke(command, ["r-1", "r-2"], obj=Settings().overriding(values))
        assert done.exit_code == 0, done.output or done.exception
        assert "1 images compared" in done.stdout
    finally:
        delete_topics(admin, [topic.name for topic in topics.catalogue()])
