"""The bulk lane, as a replay writes it: each record says where its reference lies, so that what was sent can be found there again.

The header `replay-of` of a record is `ID PARTITION:OFFSET`: the replay, and the place of the reference on the replay's topic.
"""

import threading
from collections.abc import Iterable
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from producers.publisher import OnDelivery
from schemas.connection import KafkaConnection
from schemas.errors import BusyError, ConfigurationError, DeliveryError, Reason
from schemas.replays import ReplayMark
from streams.ends import end_offsets
from streams.replay_source import GROUP
from streams.retry_headers import Headers

REPLAY_OF = "replay-of"

Place = tuple[int, int]
"""Partition and offset of a reference on the topic that is replayed."""

_FLUSH_S = 180.0
_REQUEST_S = 10.0
_AT_ONCE = 2_000
_POLL_S = 0.2
_STALLED = 300  # polls without anything


class Sender(Protocol):
    """`producers.publisher.Publisher`."""

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, on_delivery: OnDelivery, headers: Headers = ()
    ) -> None:
        """Hand one record to the client."""

    def flush(self, timeout_s: float) -> None:
        """Wait until every record has its report."""


class BulkLane:
    """Sends the references of one replay. `marks`: partition of the lane -> where what is sent from now on will lie behind."""

    def __init__(self, sender: Sender, topic: str, replay_id: str, marks: Iterable[ReplayMark]) -> None:
        self._sender, self._topic, self._replay_id = sender, topic, replay_id
        self._marks = {mark.partition: mark.offset for mark in marks if mark.topic == topic}
        self._error: KafkaError | None = None
        self._lock = threading.Lock()

    def send(self, place: Place, key: bytes | None, value: bytes) -> None:
        """Hand a reference to the client; blocks while its buffer is full. What becomes of it `settle` tells."""
        header = (REPLAY_OF, f"{self._replay_id} {place[0]}:{place[1]}".encode())
        self._sender.send(self._topic, key, value, self._report, [header])

    def settle(self) -> tuple[ReplayMark, ...]:
        """Wait until Kafka has all that was sent; where the lane's partitions are then. Raises DeliveryError where it has not."""
        self._sender.flush(_FLUSH_S)
        with self._lock:
            if self._error is not None:
                raise DeliveryError(f"a reference was not confirmed: {self._error}")
            return tuple(
                ReplayMark(topic=self._topic, partition=partition, offset=offset)
                for partition, offset in sorted(self._marks.items())
            )

    def _report(self, error: KafkaError | None, message: Message) -> None:
        with self._lock:
            if error is not None:
                self._error = self._error or error
                return
            partition = message.partition()
            self._marks[partition] = max(self._marks.get(partition, 0), message.offset() + 1)


def sent_behind(connection: KafkaConnection, topic: str, replay_id: str, marks: Iterable[ReplayMark]) -> set[Place]:
    """What the lane holds of a replay behind the marks, to its ends as they are now: which references were sent.

    Raises BusyError where the brokers do not give it, ConfigurationError where there is no such topic, or where it no longer holds that.
    """
    consumer = Consumer({**connection.librdkafka(), **_SETTINGS})
    try:
        ends = end_offsets(consumer, topic)
        first = dict.fromkeys(ends, 0) | {mark.partition: mark.offset for mark in marks if mark.topic == topic}
        left = {partition: end for partition, end in ends.items() if first[partition] < end}
        for partition in left:
            if consumer.get_watermark_offsets(TopicPartition(topic, partition), _REQUEST_S)[0] > first[partition]:
                raise ConfigurationError(f"{topic} no longer holds what was sent last: begin a new replay")
        consumer.assign([TopicPartition(topic, partition, first[partition]) for partition in left])
        return _collect(consumer, left, f"{replay_id} ".encode())
    finally:
        consumer.close()


_SETTINGS = {
    "group.id": GROUP,
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
    "log_level": 3,
}


def _collect(consumer: Consumer, left: dict[int, int], mine: bytes) -> set[Place]:
    found: set[Place] = set()
    idle = 0
    while left:
        messages = consumer.consume(_AT_ONCE, timeout=_POLL_S)
        idle = 0 if messages else idle + 1
        if idle > _STALLED:
            raise BusyError(Reason.STORAGE_UNAVAILABLE, "the bulk lane cannot be read back: nothing comes")
        for message in messages:
            partition, error = message.partition(), message.error()
            if error is None:
                found |= _places(message.headers() or (), mine)
            at_end = message.offset() + (error is None) >= left.get(partition, 0)
            if at_end and (error is None or error.code() == KafkaError._PARTITION_EOF):  # noqa: SLF001 - a public name
                left.pop(partition, None)
    return found


def _places(headers: Headers, mine: bytes) -> set[Place]:
    for name, value in headers:
        if name == REPLAY_OF and value is not None and value.startswith(mine):
            partition, _, offset = value.removeprefix(mine).decode().partition(":")
            return {(int(partition), int(offset))}
    return set()


def is_of(headers: Headers, replay_id: str) -> bool:
    """Whether a record, by its headers, is one that the replay sent."""
    return bool(_places(headers, f"{replay_id} ".encode()))
