"""Three nodes: each is killed and brought back, nobody stops writing, nothing that was acknowledged is lost."""

import threading
import time
from collections import Counter

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from infra.broker.local import LocalKafka
from schemas.connection import KafkaConnection
from tests.support.kafka import read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(600)]

_TOPIC = "survives"


def _in_sync(admin: AdminClient) -> list[int]:
    topic = admin.list_topics(_TOPIC, timeout=10).topics[_TOPIC]
    return [len(partition.isrs) for partition in topic.partitions.values()]


def _await_in_sync(admin: AdminClient) -> None:
    deadline = time.monotonic() + 120
    while _in_sync(admin) != [3, 3, 3]:
        assert time.monotonic() < deadline, f"replicas in sync: {_in_sync(admin)}"
        admin.poll(0.1)


class _Writer(threading.Thread):
    """Writes numbered records all the while; keeps what was acknowledged and what was refused."""

    def __init__(self, connection: KafkaConnection) -> None:
        super().__init__()
        self._producer = Producer(
            {**connection.librdkafka(), "enable.idempotence": True, "acks": "all", "log_level": 0}
        )
        self._stopping = threading.Event()
        self.acknowledged: list[bytes] = []
        self.refused: list[KafkaError] = []

    def run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            self._producer.produce(_TOPIC, value=str(number).encode(), on_delivery=self._report)
            self._producer.poll(0.005)
            number += 1
        self._producer.flush(60)

    def stop(self) -> None:
        self._stopping.set()
        self.join(90)

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged.append(message.value() or b"")
        else:
            self.refused.append(error)


def test_each_node_is_killed_and_brought_back(three_brokers: LocalKafka) -> None:
    connection = KafkaConnection(bootstrap=three_brokers.bootstrap)
    admin = AdminClient({**connection.librdkafka(), "log_level": 0})
    admin.create_topics([NewTopic(_TOPIC, num_partitions=3)])[_TOPIC].result(timeout=60)
    _await_in_sync(admin)
    writer = _Writer(connection)
    writer.start()
    try:
        for node in (1, 2, 3):
            three_brokers.kill(node)
            assert set(three_brokers.running()) == {1, 2, 3} - {node}
            before = len(writer.acknowledged)
            deadline = time.monotonic() + 120
            while len(writer.acknowledged) < before + 100:  # two nodes go on without the third
                assert time.monotonic() < deadline, "nothing is acknowledged with two nodes of three"
                time.sleep(0.05)
            three_brokers.restart(node)
            _await_in_sync(admin)
    finally:
        writer.stop()
    assert not writer.refused
    stored = Counter(message.value() for message in read_topic(connection, _TOPIC, len(writer.acknowledged)))
    assert stored == Counter(writer.acknowledged)
