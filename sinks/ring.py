"""The last events, for clients that come back: a cache bounded by count and bytes, never the truth."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from sinks.events import Event, Subject
from sinks.filters import Filter, InvalidMessageError


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in one ring's history: after its event number `sequence` (from 1; 0 is before the first).

    A ring numbers events in the order in which it took them from all partitions of the log, so that one number stands for the offsets of
    all of them and what a client has seen is exactly what lies before it. The number means nothing to another ring: `epoch`
    names the ring, and each rebuilt one has a new name. Clients pass cursors back as they got them.
    """

    epoch: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The cursor that `str` wrote. Raises InvalidMessageError."""
        epoch, _, sequence = text.rpartition("-")
        if not epoch or len(text) > 64 or not (sequence.isascii() and sequence.isdecimal()):
            raise InvalidMessageError("not a cursor")
        return cls(epoch, int(sequence))


class Lost(StrEnum):
    """Why a cursor cannot be resumed from."""

    EPOCH = "epoch_changed"
    TOO_OLD = "too_old"
    TOO_MANY = "too_many"
    UNKNOWN = "unknown_cursor"


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """What goes to a client: `text` is a JSON object (ASCII), `cursor` the place after it, `kind` what SSE calls its event."""

    kind: str
    cursor: str
    text: str


class Ring:
    """Events of all tenants by number, without those whose id it still holds for the same tenant.

    Oldest go first when `events` or `size_bytes` is exceeded.
    """

    def __init__(self, events: int, size_bytes: int, epoch: str | None = None) -> None:
        self.epoch = epoch or _new_epoch()
        self._limits = (events, size_bytes)
        self._entries: dict[int, tuple[Subject, Message]] = {}
        self._ids: set[tuple[str, str]] = set()  # with their tenants: nobody's id can hide somebody else's event
        self._bytes = 0
        self._first = 1
        self._last = 0
        self._origin = 0  # nothing is resumed from before this number

    @property
    def cursor(self) -> Cursor:
        """The place after the newest event."""
        return Cursor(self.epoch, self._last)

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, event: Event) -> Message | None:
        """Number and keep an event, and return the message that tells it; None for one that is here already (an empty id names nothing)."""
        subject = event.subject
        identity = (subject.tenant, subject.id)
        if identity in self._ids:
            return None
        if subject.id:
            self._ids.add(identity)
        self._last += 1
        cursor = f"{self.epoch}-{self._last}"
        message = Message(subject.kind, cursor, f'{{"type":"{subject.kind}","cursor":"{cursor}",{event.body}')
        self._entries[self._last] = (subject, message)
        self._bytes += len(message.text)
        self._evict()
        return message

    def renew(self) -> None:
        """Begin a new epoch after something was missed: no cursor leads across it, but ids are still known."""
        self.epoch = _new_epoch()
        self._origin = self._last

    def since(self, cursor: Cursor, wanted: Filter, most: int, most_bytes: int) -> list[Message] | Lost:
        """Everything wanted after a cursor, in order; or why that cannot be given whole."""
        if cursor.epoch != self.epoch:
            return Lost.EPOCH
        if cursor.sequence > self._last:
            return Lost.UNKNOWN
        if cursor.sequence < max(self._first - 1, self._origin):
            return Lost.TOO_OLD
        found: list[Message] = []
        size = 0
        for message in self._matching(cursor.sequence, wanted):
            found.append(message)
            size += len(message.text)
            if len(found) > most or size > most_bytes:
                return Lost.TOO_MANY
        return found

    def _matching(self, after: int, wanted: Filter) -> Iterator[Message]:
        for sequence in range(after + 1, self._last + 1):
            subject, message = self._entries[sequence]
            if wanted.matches(subject):
                yield message

    def _evict(self) -> None:
        events, size_bytes = self._limits
        while len(self._entries) > events or self._bytes > size_bytes:
            subject, message = self._entries.pop(self._first)
            self._ids.discard((subject.tenant, subject.id))
            self._bytes -= len(message.text)
            self._first += 1


def _new_epoch() -> str:
    return uuid.uuid4().hex[:12]
