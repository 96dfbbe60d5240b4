"""The local Kafka: what is written stays, through stops and kills; what is wrong is said."""

import pytest
from confluent_kafka import Producer

from infra.broker.local import LocalKafka
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.records import ImageRef
from schemas.topics import Topics
from tests.support.kafka import create_topics, read_topic

pytestmark = pytest.mark.kafka


def test_the_shared_kafka_takes_and_gives_records(
    connection: KafkaConnection, topics: Topics, publisher: Publisher
) -> None:
    receipt = publisher.publish(ImageRef(id="a", uri="file:///a.jpg")).result(timeout=30)
    (message,) = read_topic(connection, topics.online, at_least=1)
    assert (receipt.partition, receipt.offset) == (message.partition(), message.offset())


@pytest.mark.kill
def test_kill_and_restart_keep_every_acknowledged_record(private_kafka: LocalKafka) -> None:
    connection = KafkaConnection(bootstrap=private_kafka.bootstrap)
    topics = Topics("killed.")
    create_topics(connection, topics)
    acknowledged: set[bytes] = set()
    producer = Producer({**connection.librdkafka(), "enable.idempotence": True, "log_level": 0})

    def report(error: object, message: object) -> None:
        assert error is None
        acknowledged.add(message.value())  # type: ignore[attr-defined]

    for round_ in range(2):
        for number in range(200):
            producer.produce(topics.online, value=f"{round_}-{number}", on_delivery=report)
        if round_ == 0:
            producer.flush(30)
        private_kafka.kill()
        assert private_kafka.running() == {}
        private_kafka.restart(1)
    assert producer.flush(60) == 0
    values = [message.value() for message in read_topic(connection, topics.online, at_least=400)]
    assert len(values) == len(set(values)) == 400
    assert set(values) == acknowledged
