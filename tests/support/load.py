"""Load that does not stop while things break, on a cluster of the test's own."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from random import Random

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from infra.broker.local import LocalKafka
from producers.publisher import Publisher, Receipt
from schemas.connection import KafkaConnection
from schemas.records import ImageRef
from schemas.topics import Topics
from tests.support.deliveries import eventually
from tests.support.kafka import create_topics
from tests.support.pipeline import references, with_missing


def own_topics(kafka: LocalKafka) -> tuple[KafkaConnection, Topics]:
    """How to reach a private cluster, and topics on it."""
    connection, topics = KafkaConnection(bootstrap=kafka.bootstrap), Topics(f"t{uuid.uuid4().hex[:10]}.")
    create_topics(connection, topics)
    return connection, topics


def await_members(connection: KafkaConnection, group: str, count: int, timeout_s: float = 90.0) -> None:
    """Wait until the group is at rest with so many members."""
    admin = AdminClient({**connection.librdkafka(), "log_level": 0})

    def settled() -> bool:
        try:
            described = admin.describe_consumer_groups([group])[group].result(30)
        except KafkaException:  # the coordinator is being found
            return False
        return described.state is ConsumerGroupState.STABLE and len(described.members) == count

    eventually(settled, f"a stable group of {count}", timeout_s, pause_s=0.1)


@contextmanager
def steady_load(
    publisher: Publisher, photos: list[Path], chance: Random, pause_s: float = 0.02
) -> Iterator[list[ImageRef]]:
    """Publish eight references, some to missing files, every `pause_s` while the block runs; Kafka confirmed all when it ends."""
    ended = threading.Event()
    refs: list[ImageRef] = []
    receipts: list[Future[Receipt]] = []

    def feed() -> None:
        while not ended.wait(pause_s):
            more = with_missing(references(photos, 8), chance)
            refs.extend(more)
            receipts.extend(map(publisher.publish, more))

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield refs
    finally:
        ended.set()
        thread.join()
    for receipt in receipts:
        receipt.result(120)
