"""Reads the results that topics hold now, without a consumer group, run by run: for commands that look back."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError, RejectedError
from schemas.records import DetectionResult
from streams.ends import end_offsets

_AT_ONCE = 2000
_POLL_S = 0.1  # how long the client waits for a full batch, even when it has some of it
_STALL_S = 30.0
_REQUEST_S = 10.0
# A result is published a little after it was completed, and clocks differ a little.
_MARGIN = timedelta(minutes=5)
_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of the client, whatever its name looks like

_Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Unread:
    """A record that is no result: it is passed over."""

    topic: str
    partition: int
    offset: int
    error: RejectedError


class PastResults:
    """Reads whole topics as far as they go when reading begins. `group` is never joined nor committed to."""

    def __init__(self, connection: KafkaConnection, codec: Codec, group: str) -> None:
        self._connection, self._codec, self._group = connection, codec, group

    def present(self, topics: Collection[str]) -> list[str]:
        """Those of the topics that there are. Raises ConfigurationError where nobody answers."""
        consumer = Consumer(self._settings())
        try:
            listed = consumer.list_topics(timeout=_REQUEST_S).topics
        except KafkaException as error:
            raise ConfigurationError(f"the brokers do not answer: {error.args[0].str()}") from error
        finally:
            consumer.close()
        return [name for name in topics if name in listed]

    def read(
        self,
        topics: Sequence[str],
        since: datetime | None = None,
        unread: Callable[[Unread], object] = lambda _: None,
    ) -> Iterator[pa.RecordBatch]:
        """Results as batches with the columns of `schemas.arrow.DETECTION_RESULT`, in order per partition.

        `since`: what was published well before then may be left out. Raises ConfigurationError where a topic is not there or does not
        come to its end, BusyError where the registry does not answer.
        """
        consumer = Consumer(self._settings())
        try:
            ends = {(name, index): end for name in topics for index, end in end_offsets(consumer, name).items() if end}
            consumer.assign(_starts(consumer, list(ends), since))
            left, last = set(ends), time.monotonic()
            while left:
                messages = consumer.consume(_AT_ONCE, timeout=_POLL_S)
                last = time.monotonic() if messages else last
                if time.monotonic() - last > _STALL_S:
                    names = ", ".join(sorted({name for name, _ in left}))
                    raise ConfigurationError(f"the end of {names} was not reached: nothing came for {_STALL_S:g} s")
                left -= {_place(message) for message in messages if _is_last(message, ends[_place(message)])}
                wanted = [one for one in messages if one.error() is None and one.offset() < ends[_place(one)]]
                if wanted:
                    yield self._decode(wanted, unread)
        finally:
            consumer.close()

    def _decode(self, messages: Sequence[Message], unread: Callable[[Unread], object]) -> pa.RecordBatch:
        decoded = self._codec.decode_run([message.value() for message in messages], DetectionResult)
        for at, error in decoded.rejected:
            unread(Unread(*_place(messages[at]), messages[at].offset(), error))
        return decoded.batch

    def _settings(self) -> dict[str, Any]:
        return {
            **self._connection.librdkafka(),
            "client.id": self._group,
            "group.id": self._group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }


def _starts(consumer: Consumer, places: Sequence[_Place], since: datetime | None) -> list[TopicPartition]:
    """Where to begin: at the start where the broker knows no better (nothing that new, or no idea of timestamps)."""
    if since is None or not places:
        return [TopicPartition(*place, 0) for place in places]
    moment = round((since - _MARGIN).timestamp() * 1000)
    try:
        found = consumer.offsets_for_times([TopicPartition(*place, moment) for place in places], timeout=_REQUEST_S)
    except KafkaException as error:
        raise ConfigurationError(f"the brokers do not answer: {error.args[0].str()}") from error
    return [TopicPartition(one.topic, one.partition, max(one.offset, 0)) for one in found]


def _place(message: Message) -> _Place:
    return message.topic(), message.partition()


def _is_last(message: Message, end: int) -> bool:
    """Whether nothing before `end` follows; the last offsets may hold no record, then only the broker's word tells."""
    if message.error() is None:
        return bool(message.offset() >= end - 1)
    return bool(message.error().code() == _END)
