"""Reads the references of a replay from their topic: exact stretches of each partition, in order, without a consumer group."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from types import TracebackType
from typing import Self

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import BusyError, ConfigurationError, Reason
from schemas.records import ImageRef
from streams.ends import end_offsets
from streams.replay_selection import Selection, fits
from streams.retry_headers import Origin, RetryState

Bound = datetime | Mapping[int, int] | None
"""Where a replay begins or ends: at a moment, at offsets of partitions, or as far as the topic goes."""

GROUP = "sightstream-replay"  # never joined, never committed to: the client insists on a name
_AT_ONCE = 500
_POLL_S = 0.2
_REQUEST_S = 10.0
_STALL_S = 120.0
_HOPELESS = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART)
_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of the client, whatever its name looks like


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets `first` to before `end` of a partition."""

    partition: int
    first: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """What was found next in a partition: row i of `refs` is the record at `offsets[i]`.

    The records before `next` that are no row were looked at and are not taken, `unreadable` of them because nobody could read them, or
    they are too large.
    """

    partition: int
    next: int
    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes]
    refs: pa.RecordBatch
    unreadable: int = 0


class Source:
    """One topic of references. A context manager; not thread-safe. What an aborted transaction wrote is not seen."""

    def __init__(
        self, connection: KafkaConnection, codec: Codec, topic: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.topic = topic
        self._codec, self._now = codec, now
        self._consumer = Consumer({**connection.librdkafka(), **_SETTINGS})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def ends(self, topic: str) -> dict[int, int]:
        """Where the partitions of any topic end now. Raises ConfigurationError where there is no such topic."""
        return end_offsets(self._consumer, topic)

    def spans(self, start: Bound, end: Bound) -> tuple[Span, ...]:
        """The offsets between two bounds that the topic still holds, of each partition where there are any.

        A record belongs to the moment of its timestamp. Where offsets are given as the start, partitions without one are left out; as
        the end, they go as far as the topic does. Raises ConfigurationError for a partition that there is not, and for moments where
        the brokers know none.
        """
        ends = self.ends(self.topic)
        for bound in (start, end):
            if isinstance(bound, Mapping) and (unknown := bound.keys() - ends.keys()):
                raise ConfigurationError(f"{self.topic} has no partition {min(unknown)}: it has {len(ends)}")
        lows = {partition: self._low(partition) for partition in ends}
        first = lows if start is None else self._offsets(start, ends)
        last = ends if end is None else {**ends, **self._offsets(end, ends)}
        spans = [
            Span(partition, max(first[partition], lows[partition]), min(last[partition], ends[partition]))
            for partition in sorted(first)
        ]
        return tuple(span for span in spans if span.first < span.end)

    def read(self, spans: Sequence[Span], selection: Selection, within: Sequence[Span] = ()) -> Iterator[Stretch]:
        """The references of the spans that are selected; each span's last stretch ends where the span does.

        A record that came back from a retry stands for one that lies earlier on the topic: it is left out where that one is in a span of
        `within` (default: of `spans`). Raises BusyError where nothing comes for two minutes, or where the schema registry does not answer.
        """
        left = {span.partition: span for span in spans if span.first < span.end}
        whole = {span.partition: span for span in within or spans}
        self._consumer.assign([TopicPartition(self.topic, span.partition, span.first) for span in left.values()])
        try:
            while left:
                for partition, messages in self._fetch():
                    span = left.get(partition)
                    if span is None:
                        continue
                    good = [message for message in messages if _is_record(message) and message.offset() < span.end]
                    ended = any(_reaches(message, span.end) for message in messages)
                    if good or ended:
                        behind = span.end if ended else good[-1].offset() + 1
                        held = [message for message in good if not _is_copy(message, whole)]
                        yield self._stretch(partition, behind, held, selection)
                    if ended:
                        del left[partition]
                        self._consumer.incremental_unassign([TopicPartition(self.topic, partition)])
        finally:
            self._consumer.unassign()

    def _fetch(self) -> list[tuple[int, list[Message]]]:
        """What came next, by partition."""
        deadline = self._now() + _STALL_S
        while not (messages := self._consumer.consume(_AT_ONCE, timeout=_POLL_S)):
            if self._now() > deadline:
                raise BusyError(Reason.STORAGE_UNAVAILABLE, f"{self.topic}: nothing came for {_STALL_S:g} s")
        messages.sort(key=Message.partition)  # stable: offsets stay in order
        return [(partition, list(some)) for partition, some in groupby(messages, Message.partition)]

    def _stretch(self, partition: int, behind: int, held: Sequence[Message], selection: Selection) -> Stretch:
        candidates = [message for message in held if message.value() is not None and fits(message.value())]
        decoded = self._codec.decode_run([message.value() for message in candidates], ImageRef)
        mask = selection.mask(decoded.batch)
        taken = [candidates[at] for at in decoded.index[mask].tolist()]
        return Stretch(
            partition,
            behind,
            [message.offset() for message in taken],
            [message.key() for message in taken],
            [message.value() for message in taken],
            decoded.batch.filter(pa.array(mask, pa.bool_())),
            len(decoded.rejected) + len(held) - len(candidates),
        )

    def _low(self, partition: int) -> int:
        return int(self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), _REQUEST_S)[0])

    def _offsets(self, bound: datetime | Mapping[int, int], ends: Mapping[int, int]) -> Mapping[int, int]:
        if isinstance(bound, Mapping):
            return bound
        found = self._at(bound, ends)
        if any(ends[partition] > self._low(partition) for partition in ends) and not self._knows_time(ends):
            raise ConfigurationError(f"the brokers cannot look {self.topic} up by time: give offsets")
        return found

    def _at(self, moment: datetime, ends: Mapping[int, int]) -> dict[int, int]:
        """Partition -> the first offset of that moment or later."""
        stamp = round(moment.timestamp() * 1000)
        try:
            answers = self._consumer.offsets_for_times(
                [TopicPartition(self.topic, partition, stamp) for partition in ends], timeout=_REQUEST_S
            )
        except KafkaException as error:
            raise ConfigurationError(f"cannot look {self.topic} up by time: {error.args[0].str()}") from error
        return {one.partition: one.offset if one.offset >= 0 else ends[one.partition] for one in answers}

    def _knows_time(self, ends: Mapping[int, int]) -> bool:
        """The embedded cluster finds nothing at any moment, a real one finds the beginning of time."""
        beginning = self._at(datetime.fromtimestamp(0.001).astimezone(), ends)
        return any(offset < ends[partition] for partition, offset in beginning.items())


_SETTINGS = {
    "client.id": GROUP,
    "group.id": GROUP,
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",  # what retention took meanwhile is missed, and counted as missing
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
    "queued.max.messages.kbytes": 16_384,
    "fetch.max.bytes": 16 << 20,
    "fetch.wait.max.ms": 100,
    "log_level": 3,
}


def _is_record(message: Message) -> bool:
    """Whether this is a record and not an event of the client. Raises ConfigurationError for what no waiting mends."""
    error = message.error()
    if error is None:
        return True
    if error.code() in _HOPELESS:
        raise ConfigurationError(f"cannot read {message.topic()}: {error.str()}")
    return False


def _reaches(message: Message, end: int) -> bool:
    """Whether no record before `end` follows. The last offsets may hold none that is shown: then only the broker's word tells."""
    error = message.error()
    if error is None:
        return bool(message.offset() >= end - 1)
    return bool(error.code() == _END and message.offset() >= end)


def _is_copy(message: Message, whole: Mapping[int, Span]) -> bool:
    headers = message.headers()
    if not headers:
        return False
    here = Origin(message.topic(), message.partition(), message.offset(), 0)
    origin = RetryState.from_headers(headers, here).origin
    span = whole.get(origin.partition)
    is_another = (origin.partition, origin.offset) != (here.partition, here.offset)
    return bool(is_another and origin.topic == here.topic and span and span.first <= origin.offset < span.end)
