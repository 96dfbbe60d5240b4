"""What the judge reads of the log: results, shadow results and dead letters of all partitions, from a moment on."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.connection import KafkaConnection
from schemas.errors import BusyError, Reason
from schemas.topics import Topics
from sinks.base import Partition

log = logging.getLogger(__name__)

_REQUEST_S = 5.0
_PAUSE_S = 1.0
_LOOK_BACK = 20_000  # records of a partition, where it cannot be asked by time
_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of the client, whatever its name looks like


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive records of a partition; `at_end`: for now there are no more behind them."""

    partition: Partition
    values: Sequence[bytes | None]
    at_end: bool


class JudgeLog:
    """A consumer that joins no group and commits nothing: what has been judged stands in the rollouts themselves. A context manager."""

    def __init__(self, connection: KafkaConnection, topics: Topics, group: str) -> None:
        self._names = (topics.detections, topics.shadow, topics.dead_letters)
        self._consumer = Consumer(
            {
                **connection.librdkafka(),
                "client.id": group,
                "group.id": group,  # never joined nor committed to
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",  # where retention was faster
                "enable.partition.eof": True,
                "reconnect.backoff.max.ms": 1000,
                "error_cb": lambda error: log.warning("judge: %s", error.str()),
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def partitions(self) -> frozenset[Partition]:
        """All there are now. Raises BusyError where the brokers do not answer."""
        return frozenset(Partition(*place) for name in self._names for place in self._listed(name))

    def read_from(self, partitions: frozenset[Partition], since: datetime) -> None:
        """Read these partitions from the first record that was written at `since` or later. Raises BusyError."""
        try:
            self._consumer.assign([self._start(partition, since) for partition in sorted(partitions)])
        except KafkaException as error:
            raise _busy(error) from error

    def stop_reading(self) -> None:
        """Read nothing until `read_from`."""
        self._consumer.unassign()

    def stretches(self, most: int, wait_s: float) -> Iterator[Stretch]:
        """Up to so many records, by partition; waits so long for the first."""
        first = self._consumer.poll(wait_s)
        if first is None:
            return
        messages = [first, *self._consumer.consume(most - 1, 0)]
        messages.sort(key=_place)  # stable: what comes of one partition stays in order
        for place, run in groupby(messages, _place):
            yield _stretch(place, list(run))

    def _listed(self, name: str) -> list[tuple[str, int]]:
        try:
            listed = self._consumer.list_topics(name, timeout=_REQUEST_S).topics[name]
        except KafkaException as error:
            raise _busy(error) from error
        if listed.error is not None:
            raise _busy(KafkaException(listed.error))
        return [(name, index) for index in listed.partitions]

    def _start(self, partition: Partition, since: datetime) -> TopicPartition:
        place = TopicPartition(partition.topic, partition.index)
        low, high = self._consumer.get_watermark_offsets(place, timeout=_REQUEST_S)
        moment_ms = max(0, round(since.timestamp() * 1000))
        asked = [TopicPartition(partition.topic, partition.index, moment_ms)]
        found = -1
        with suppress(KafkaException):  # the embedded broker knows no times
            found = self._consumer.offsets_for_times(asked, timeout=_REQUEST_S)[0].offset
        return TopicPartition(partition.topic, partition.index, found if found >= 0 else max(low, high - _LOOK_BACK))


def _stretch(partition: Partition, messages: Sequence[Message]) -> Stretch:
    for message in messages:
        if message.error() is not None and message.error().code() != _END:
            log.warning("judge: %s", message.error().str())
    last = messages[-1].error()
    values = [message.value() for message in messages if message.error() is None]
    return Stretch(partition, values, at_end=last is not None and last.code() == _END)


def _place(message: Message) -> Partition:
    return Partition(message.topic() or "", message.partition() or 0)


def _busy(error: KafkaException) -> BusyError:
    return BusyError(Reason.STORAGE_UNAVAILABLE, f"the brokers do not answer: {error.args[0].str()}", _PAUSE_S)
