"""Looks through the dead letters, and puts their records back on their lanes.

That a letter was redriven is written beside it: a record without a value, with the letter's key and the header `redriven`
(`PARTITION:OFFSET` of the letter). So every machine knows, for as long as the topic keeps the letter. The marker follows the
confirmed record: killed in between, the next redrive sends the record once more, under the same image id.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from producers.publisher import Publisher
from schemas import failpoints
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError, DeliveryError, Reason, RejectedError
from schemas.records import DeadLetter, Lane
from schemas.topics import Topics
from streams.ends import end_offsets
from streams.retry_headers import Headers, without_retry

REDRIVE_OF = "redrive.of"
_REDRIVEN = "redriven"
_AT_ONCE = 500
_POLL_S = 0.1  # how long the client waits for a full batch, even when it has some of it
_STALL_S = 30.0


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a letter lies in the dead-letter topic; as text `PARTITION:OFFSET`."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Read `PARTITION:OFFSET`, or `OFFSET` of partition 0. Raises ValueError."""
        partition, _, offset = text.rpartition(":")
        return cls(int(partition or 0), int(offset))


@dataclass(frozen=True, slots=True)
class Entry:
    """A letter and where it lies; `redriven` if a marker says so."""

    place: Place
    letter: DeadLetter
    redriven: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which letters; what is empty or None does not restrict. `since` counts, `until` does not any more (time of failure)."""

    codes: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    image_ids: frozenset[str] = frozenset()
    batch_id: str | None = None
    places: frozenset[Place] = frozenset()
    limit: int | None = None

    def accepts(self, place: Place, letter: DeadLetter) -> bool:
        """Whether a letter is one of them."""
        return (
            (not self.codes or letter.code in self.codes)
            and (self.since is None or letter.failed_at >= self.since)
            and (self.until is None or letter.failed_at < self.until)
            and (not self.image_ids or letter.image_id in self.image_ids)
            and (self.batch_id is None or letter.batch_id == self.batch_id)
            and (not self.places or place in self.places)
        )


@dataclass(slots=True)
class Redrive:
    """What a redrive did: letters sent, passed over because they had been before, and not possible (with the reason)."""

    sent: list[Place] = field(default_factory=list)
    before: list[Place] = field(default_factory=list)
    impossible: dict[Place, str] = field(default_factory=dict)


class DeadLetters:
    """Reads the whole topic, without a consumer group, as far as it goes when reading begins."""

    def __init__(self, connection: KafkaConnection, codec: Codec, topics: Topics) -> None:
        self._connection = connection
        self._codec = codec
        self._topics = topics

    def find(
        self, wanted: Filter, unreadable: Callable[[Place, RejectedError], object] = lambda *_: None
    ) -> Iterator[Entry]:
        """The letters that the filter accepts, in order per partition. Raises `ConfigurationError` if there is no such topic.

        Reads twice, first for the markers. A record that is no letter goes to `unreadable`.
        """
        with _consumer(self._connection) as consumer:
            ends = end_offsets(consumer, self._topics.dead_letters)
        redriven = {_marked(message) for message in self._read(ends)} - {None}
        return islice(self._entries(wanted, ends, redriven, unreadable), wanted.limit)

    def redrive(
        self, entries: Iterable[Entry], publisher: Publisher, *, again: bool = False, dry_run: bool = False
    ) -> Redrive:
        """Put the records of letters back on their lanes, each confirmed before it is marked as redriven.

        A record keeps its bytes, key and headers, except that its tries begin anew and `redrive.of` names the letter. `again`
        sends also what was redriven before. Raises DeliveryError; what was confirmed until then is marked.
        """
        done, batch = Redrive(), list[tuple[Entry, str]]()
        for entry in entries:
            topic = self._lane_of(entry.letter)
            if topic is None or entry.letter.value is None:
                done.impossible[entry.place] = _obstacle(entry.letter)
            elif entry.redriven and not again:
                done.before.append(entry.place)
            elif dry_run:
                done.sent.append(entry.place)
            else:
                batch.append((entry, topic))
            if len(batch) == _AT_ONCE:
                self._send(batch, publisher, done)
                batch.clear()
        self._send(batch, publisher, done)
        return done

    def _send(self, batch: list[tuple[Entry, str]], publisher: Publisher, done: Redrive) -> None:
        """Send a batch's records, then the markers of those that were confirmed. One that is too large is not possible."""
        reports = [
            _send(publisher, topic, entry.letter.key, entry.letter.value, self._headers(entry))
            for entry, topic in batch
        ]
        errors = [report.exception() for report in reports]
        failpoints.reach("redrive.sent")
        confirmed = [entry for (entry, _), error in zip(batch, errors, strict=True) if error is None]
        done.sent += [entry.place for entry in confirmed]
        for (entry, _), error in zip(batch, errors, strict=True):
            if isinstance(error, RejectedError):
                done.impossible[entry.place] = str(error)
        reports = [
            _send(publisher, self._topics.dead_letters, entry.letter.key, None, [_marker(entry)]) for entry in confirmed
        ]
        for error in [*errors, *(report.exception() for report in reports)]:
            if error is not None and not isinstance(error, RejectedError):
                raise error

    def _headers(self, entry: Entry) -> Headers:
        kept = without_retry([(header.name, header.value) for header in entry.letter.headers])
        origin = f"{self._topics.dead_letters}:{entry.place}".encode()
        return [*(header for header in kept if header[0] != REDRIVE_OF), (REDRIVE_OF, origin)]

    def _lane_of(self, letter: DeadLetter) -> str | None:
        lanes = {self._topics.lane(lane) for lane in Lane}
        return letter.source_topic if letter.source_topic in lanes else None

    def _entries(
        self,
        wanted: Filter,
        ends: Mapping[int, int],
        redriven: set[Place | None],
        unreadable: Callable[[Place, RejectedError], object],
    ) -> Iterator[Entry]:
        for message in self._read(ends):
            place = Place(message.partition(), message.offset())
            if _marked(message) is not None:
                continue
            try:
                letter = self._codec.decode(message.value(), DeadLetter)
            except RejectedError as error:
                unreadable(place, error)
                continue
            if wanted.accepts(place, letter):
                yield Entry(place, letter, place in redriven)

    def _read(self, ends: Mapping[int, int]) -> Iterator[Message]:
        """Every record before `ends`, so that what arrives meanwhile (a redriven record that fails again) is not read."""
        topic, left = self._topics.dead_letters, {partition for partition, end in ends.items() if end}
        with _consumer(self._connection) as consumer:
            consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
            last = time.monotonic()
            while left:
                messages = consumer.consume(_AT_ONCE, timeout=_POLL_S)
                last = time.monotonic() if messages else last
                if time.monotonic() - last > _STALL_S:
                    raise ConfigurationError(f"{topic}: its end was not reached, nothing came for {_STALL_S:g} s")
                for message in messages:
                    partition, error = message.partition(), message.error()
                    if error is None and message.offset() < ends[partition]:
                        yield message
                    if _is_last(message, ends[partition]):
                        left.discard(partition)


def _is_last(message: Message, end: int) -> bool:
    """Whether nothing before `end` follows; the last offsets may hold no record, then only the broker's word tells."""
    if message.error() is None:
        return bool(message.offset() >= end - 1)
    return bool(message.error().code() == KafkaError._PARTITION_EOF)  # noqa: SLF001 - a public name


@contextmanager
def _consumer(connection: KafkaConnection) -> Iterator[Consumer]:
    settings = {
        "group.id": "sightstream-dead-letters",  # never joined, never committed to: the client insists on a name
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
    }
    consumer = Consumer({**connection.librdkafka(), **settings})
    try:
        yield consumer
    finally:
        consumer.close()


def _marked(message: Message) -> Place | None:
    """The letter that this record marks as redriven, or None if it is no marker."""
    if message.value() is not None:
        return None
    for name, value in message.headers() or []:
        if name == _REDRIVEN and value is not None:
            try:
                return Place.parse(value.decode())
            except ValueError:
                return None
    return None


def _obstacle(letter: DeadLetter) -> str:
    if letter.value is None:
        return "its original bytes were not kept"
    return f"it was first published on {letter.source_topic or 'an unknown topic'}, which is no lane of images"


def _marker(entry: Entry) -> tuple[str, bytes]:
    return _REDRIVEN, str(entry.place).encode()


def _send(publisher: Publisher, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> "Future[None]":
    future: Future[None] = Future()

    def report(error: KafkaError | None, _: Message) -> None:
        if error is None:
            future.set_result(None)
        elif (
            error.code() == KafkaError.MSG_SIZE_TOO_LARGE
        ):  # the broker's word: the topic takes less than the client thought
            future.set_exception(RejectedError(Reason.RECORD_TOO_LARGE, f"the record does not fit on {topic}: {error}"))
        else:
            future.set_exception(DeliveryError(f"a record for {topic} was not confirmed: {error}"))

    try:
        publisher.send(topic, key, value, report, headers)
    except RejectedError as error:
        future.set_exception(error)
    return future
