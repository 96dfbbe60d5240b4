"""One key, one partition, whoever writes it; and an aborted transaction is not read by what forwards records."""

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Producer

from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.records import ImageRef
from schemas.topics import Topics
from tests.support.kafka import read_topic

pytestmark = pytest.mark.kafka

KEYS = [*(f"camera-{n}" for n in range(40)), "é", "x" * 300]


async def test_the_publisher_partitions_like_aiokafka_and_so_like_java(
    connection: KafkaConnection, publisher: Publisher, codec: Codec, topics: Topics
) -> None:
    receipts = [publisher.publish(ImageRef(id=f"i{n}", uri="s3://b/k", key=key)) for n, key in enumerate(KEYS)]
    ours = {key: receipt.result(60).partition for key, receipt in zip(KEYS, receipts, strict=True)}
    foreign = AIOKafkaProducer(bootstrap_servers=connection.bootstrap)
    await foreign.start()
    try:
        value = codec.encode(ImageRef(id="foreign", uri="s3://b/k"))
        theirs = {key: (await foreign.send_and_wait(topics.online, value, key=key.encode())).partition for key in KEYS}
    finally:
        await foreign.stop()
    assert theirs == ours
    assert len(set(ours.values())) == 4


def test_what_an_aborted_transaction_wrote_is_not_read(
    connection: KafkaConnection, publisher: Publisher, codec: Codec, topics: Topics
) -> None:
    producer = Producer({**connection.librdkafka(), "transactional.id": topics.prefix, "partitioner": "murmur2_random"})
    producer.init_transactions(60)
    for image_id, end in (("aborted", producer.abort_transaction), ("committed", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(topics.online, codec.encode(ImageRef(id=image_id, uri="s3://b/k")), b"cam")
        producer.flush(60)
        end(60)
    publisher.publish(ImageRef(id="plain", uri="s3://b/k", key="cam")).result(60)
    ids = [codec.decode(message.value(), ImageRef).id for message in read_topic(connection, topics.online)]
    assert ids == ["committed", "plain"]
