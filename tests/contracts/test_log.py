"""What every log keeps: the embedded broker and a real Kafka take the same records and give them back alike."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from aiokafka.partitioner import murmur2

from infra.broker.embedded import EmbeddedKafka
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.records import ImageRef, Lane, new_image_id
from schemas.topics import Topics
from tests.support.kafka import read_topic

PARTITIONS = EmbeddedKafka.partitions  # and the fixture's
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Log:
    """Somewhere to publish to, and to read back from."""

    connection: KafkaConnection
    topics: Topics
    publisher: Publisher


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest, codec: Codec) -> Iterator[Log]:
    if request.param == "kafka":
        connection, topics = request.getfixturevalue("connection"), request.getfixturevalue("topics")
        with Publisher(connection, codec, topics) as publisher:
            yield Log(connection, topics, publisher)
        return
    with EmbeddedKafka() as broker:
        connection, topics = KafkaConnection(bootstrap=broker.bootstrap), Topics()
        broker.create(topic.name for topic in topics.catalogue())
        with Publisher(connection, codec, topics) as publisher:
            yield Log(connection, topics, publisher)


def refs(count: int, keys: int = 8) -> list[ImageRef]:
    return [
        ImageRef(id=new_image_id(), uri=f"file:///{at}.jpg", key=f"camera-{at % keys}", submitted_at=NOW)
        for at in range(count)
    ]


def test_a_receipt_says_where_the_very_bytes_stand(log: Log, codec: Codec) -> None:
    wanted = refs(100)
    receipts = [future.result(60) for future in [log.publisher.publish(ref) for ref in wanted]]
    messages = {(m.topic(), m.partition(), m.offset()): m for m in read_topic(log.connection, log.topics.online, 100)}
    assert len(messages) == len(wanted)
    for ref, receipt in zip(wanted, receipts, strict=True):
        message = messages[receipt.topic, receipt.partition, receipt.offset]
        assert message.value() == codec.encode(ref)
        assert message.key() == ref.ordering_key.encode()


def test_records_of_a_key_keep_their_order_in_one_partition(log: Log, codec: Codec) -> None:
    wanted = refs(400)
    for future in [log.publisher.publish(ref) for ref in wanted]:
        future.result(60)
    found: dict[str, list[str]] = defaultdict(list)
    partitions = defaultdict(set)
    for message in read_topic(log.connection, log.topics.online, 400):
        ref = codec.decode(message.value(), ImageRef)
        found[ref.key].append(ref.id)
        partitions[ref.key].add(message.partition())
    assert found == {key: [ref.id for ref in wanted if ref.key == key] for key in found}
    assert sum(map(len, found.values())) == len(wanted)
    assert {len(places) for places in partitions.values()} == {1}


def test_one_key_has_the_same_partition_in_every_log(log: Log) -> None:
    wanted = refs(8)
    receipts = [log.publisher.publish(ref).result(60) for ref in wanted]
    places = [(murmur2(ref.key.encode()) & 0x7FFFFFFF) % PARTITIONS for ref in wanted]  # as Java's clients
    assert [receipt.partition for receipt in receipts] == places


def test_lanes_are_topics_of_their_own(log: Log, codec: Codec) -> None:
    online, bulk = refs(2)
    for ref in (online, replace(bulk, lane=Lane.BULK)):
        log.publisher.publish(ref).result(60)
    for topic, ref in ((log.topics.online, online), (log.topics.bulk, bulk)):
        [message] = read_topic(log.connection, topic, 1)
        assert codec.decode(message.value(), ImageRef).id == ref.id


def test_headers_tombstones_and_records_without_a_key_go_round(log: Log) -> None:
    headers = [("retry.attempt", b"1"), ("twice", b"a"), ("twice", b""), ("none", None)]
    problems: list[object] = []
    records = [(b"k", b"v", headers), (b"k", None, []), (None, b"\0\xff", []), (b"", b"", [])]
    for key, value, some in records:
        log.publisher.send(log.topics.online, key, value, lambda error, _: problems.append(error), some)
    log.publisher.flush(60)
    assert problems == [None] * len(records)
    messages = read_topic(log.connection, log.topics.online, len(records))
    found = {(m.key(), m.value(), tuple(m.headers() or ())) for m in messages}
    assert found == {(key, value, tuple(some)) for key, value, some in records}
