"""The brokers of a test run, and the few questions that tests put to them."""

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from infra.broker.local import Jvm, LocalKafka
from infra.broker.processes import Process, identify
from infra.broker.registry import LocalRegistry
from infra.topics import unserved_partitions
from schemas.connection import KafkaConnection
from schemas.topics import Topics

_HOME = Path(tempfile.gettempdir()) / f"sightstream-tests-{os.getuid()}"
SMALL = Jvm(heap_mb=256, short_lived=True)
_QUIET = {"log_level": 0}


class Run:
    """The directory of one pytest run, common to its xdist workers; the process that made it ends what was started there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def kafka(self) -> LocalKafka:
        """The one-node Kafka that all workers share; the first to ask starts it while the others wait."""
        kafka = LocalKafka(self.directory / "kafka", jvm=Jvm(short_lived=True))
        kafka.start()
        return kafka

    @classmethod
    def begin(cls) -> "Run":
        """A fresh run of this process; sweeps up after runs whose process was killed."""
        _HOME.mkdir(parents=True, exist_ok=True)
        for old in _HOME.iterdir():
            if _owner_is_gone(old):
                cls(old).end()
        directory = Path(tempfile.mkdtemp(dir=_HOME))
        me = identify(os.getpid())
        (directory / "owner").write_text(f"{me.pid} {me.born}", "utf-8")
        return cls(directory)

    def registry(self) -> LocalRegistry:
        """The schema registry that all workers share; the first to ask starts it while the others wait."""
        registry = LocalRegistry(self.directory / "registry")
        registry.start()
        return registry

    def end(self) -> None:
        """Stop every server of the run and remove its data."""
        for directory in self.directory.glob("*/"):
            LocalKafka(directory).stop(grace_s=5)
            LocalRegistry(directory).stop(grace_s=5)
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextmanager
    def private(self, nodes: int) -> Iterator[LocalKafka]:
        """A cluster for the caller alone, ended with the block."""
        kafka = LocalKafka(self.directory / f"private-{uuid.uuid4().hex[:8]}", nodes=nodes, jvm=SMALL)
        try:
            kafka.start()
            yield kafka
        finally:
            kafka.stop(grace_s=5)
            shutil.rmtree(kafka.directory, ignore_errors=True)


def _owner_is_gone(directory: Path) -> bool:
    try:
        pid, born = (directory / "owner").read_text("utf-8").split(maxsplit=1)
    except FileNotFoundError:
        return False  # just being made
    return not Process(int(pid), born).alive()


def create_topics(connection: KafkaConnection, topics: Topics, partitions: int = 4) -> None:
    """Create the whole catalogue under the prefix of `topics`."""
    admin = AdminClient({**connection.librdkafka(), **_QUIET})
    wanted = [NewTopic(topic.name, num_partitions=topic.partitions) for topic in topics.catalogue(partitions)]
    for future in admin.create_topics(wanted, operation_timeout=30).values():
        future.result(timeout=30)
    deadline, partitions_of = time.monotonic() + 30, {topic.topic: topic.num_partitions for topic in wanted}
    while unserved_partitions(admin, partitions_of):  # created, but clients cannot use them yet
        assert time.monotonic() < deadline, "the topics were created, but are not served"
        admin.poll(0.02)


def delete_topics(connection: KafkaConnection, names: Sequence[str]) -> None:
    """Delete those topics; one that does not exist is fine."""
    admin = AdminClient({**connection.librdkafka(), **_QUIET})
    for future in admin.delete_topics(list(names), operation_timeout=30).values():
        try:
            future.result(timeout=30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise


def read_topic(
    connection: KafkaConnection, topic: str, at_least: int = 0, timeout_s: float = 30.0, group: str | None = None
) -> list[Message]:
    """Every record of a topic, in order per partition: to the end as it is now, and further until there are `at_least`.

    Aborted records are left out. No group is joined; `group` names the one whose coordinator is asked for. Raises AssertionError
    when `timeout_s` is over first.
    """
    settings = {
        "group.id": group or uuid.uuid4().hex,
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        **_QUIET,
    }
    consumer = Consumer({**connection.librdkafka(), **settings, "auto.offset.reset": "earliest"})
    try:
        partitions = list(consumer.list_topics(topic, timeout=timeout_s).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        return _drain(consumer, topic, partitions, at_least, time.monotonic() + timeout_s)
    finally:
        consumer.close()


def _drain(consumer: Consumer, topic: str, partitions: Sequence[int], at_least: int, deadline: float) -> list[Message]:
    messages: list[Message] = []
    ends = _ends(consumer, topic, partitions)
    ended: set[int] = set()  # a partition may end in records that are never shown: aborted ones, transaction markers
    while len(messages) < at_least or not (ended >= ends.keys() or _reached(consumer, topic, ends)):
        assert time.monotonic() < deadline, f"{topic}: {len(messages)} records, expected at least {at_least}"
        for message in consumer.consume(1000, timeout=0.2):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            else:
                raise KafkaException(error)
    return messages


def _ends(consumer: Consumer, topic: str, partitions: Sequence[int]) -> dict[int, int]:
    return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in partitions}


def _reached(consumer: Consumer, topic: str, ends: Mapping[int, int]) -> bool:
    positions = consumer.position([TopicPartition(topic, p) for p in ends])
    return all(max(position.offset, 0) >= ends[position.partition] for position in positions)


def topic_names(connection: KafkaConnection) -> set[str]:
    """The topics that are there now."""
    return set(AdminClient({**connection.librdkafka(), **_QUIET}).list_topics(timeout=30).topics)
