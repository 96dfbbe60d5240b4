"""How often a record was tried, as its Kafka headers tell, and where it goes after the next failure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from schemas.errors import Reason
from schemas.topics import Topics

Headers = Sequence[tuple[str, bytes | None]]

PREFIX = "retry."
_ATTEMPT = "retry.attempt"
_NOT_BEFORE = "retry.not.before"
_REASON = "retry.reason"
_FIRST_FAILURE = "retry.first.failure"
_ORIGINAL = "retry.original."

# What Avro and datetime can hold: a header may say any number.
_INT = 2**31 - 1
_LONG = 2**63 - 1
_LAST_MS = 253_402_300_799_000  # the end of the year 9999


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record was first published: topic, partition, offset and the record's timestamp (epoch ms)."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryState:
    """What the headers of a record say about its earlier tries.

    `attempt`: tries that failed so far, 0 for a record that was never retried. `first_failure_ms` (epoch) and
    `reason` (a `Reason`'s value) are None before the first failure. `not_before_ms`: when it may be tried again,
    0 = now. `others`: the record's foreign headers (`traceparent` ...), which travel on unchanged.
    """

    origin: Origin
    attempt: int = 0
    first_failure_ms: int | None = None
    reason: str | None = None
    not_before_ms: int = 0
    others: tuple[tuple[str, bytes | None], ...] = field(default=())

    @classmethod
    def from_headers(cls, headers: Headers | None, here: Origin) -> Self:
        """Read a record's headers; `here` is the record's own position, which is its origin if it was never retried.

        Never raises: an unreadable header counts as absent, because headers are whatever a producer wrote.
        """
        found = {name: value for name, value in headers or () if name.startswith(PREFIX) and value is not None}
        attempt = _integer(found, _ATTEMPT, _INT) or 0
        return cls(
            origin=(_origin(found) or here) if attempt else here,
            attempt=attempt,
            first_failure_ms=_integer(found, _FIRST_FAILURE, _LAST_MS),
            reason=_text(found, _REASON),
            not_before_ms=_integer(found, _NOT_BEFORE, _LAST_MS) or 0,
            others=without_retry(headers),
        )

    def next(self, reason: Reason, now_ms: int, retry_after_s: float, topics: Topics) -> tuple[str, Headers] | None:
        """Where this record goes after one more failure, and its headers there; None: budget spent, dead-letter it.

        `retry_after_s` is what the failing side asked for (0: nothing); see `next_retry`.
        """
        step = next_retry(self.attempt, retry_after_s, topics)
        if step is None:
            return None
        topic, delay_ms = step
        written = {
            _ATTEMPT: self.attempt + 1,
            _NOT_BEFORE: now_ms + delay_ms,
            _REASON: reason.value,
            _FIRST_FAILURE: now_ms if self.first_failure_ms is None else self.first_failure_ms,
            f"{_ORIGINAL}topic": self.origin.topic,
            f"{_ORIGINAL}partition": self.origin.partition,
            f"{_ORIGINAL}offset": self.origin.offset,
            f"{_ORIGINAL}timestamp": self.origin.timestamp_ms,
        }
        return topic, (*self.others, *((name, str(value).encode()) for name, value in written.items()))


def next_retry(attempt: int, retry_after_s: float, topics: Topics) -> tuple[str, int] | None:
    """Choose the retry topic of a record that failed `attempt` times before, and now again; None: budget spent.

    Returns the topic and the wait in ms. Every record of a topic waits equally long, so that they fall due in the order
    in which they lie there. A side that asks for longer gets a later topic; nobody waits longer than in the last one.
    """
    left = list(topics.retries.items())[attempt:]
    if not left:
        return None
    topic, delay = next((step for step in left if step[1].total_seconds() >= retry_after_s), left[-1])
    return topic, int(delay.total_seconds() * 1000)


def without_retry(headers: Headers | None) -> tuple[tuple[str, bytes | None], ...]:
    """Keep only the headers that are not about retries, in order."""
    return tuple((name, value) for name, value in headers or () if not name.startswith(PREFIX))


def _origin(found: Mapping[str, bytes]) -> Origin | None:
    topic = _text(found, f"{_ORIGINAL}topic")
    partition = _integer(found, f"{_ORIGINAL}partition", _INT)
    offset = _integer(found, f"{_ORIGINAL}offset", _LONG)
    timestamp = _integer(found, f"{_ORIGINAL}timestamp", _LAST_MS)
    if not topic or partition is None or offset is None:
        return None
    return Origin(topic, partition, offset, timestamp or 0)


def _text(found: Mapping[str, bytes], name: str) -> str | None:
    try:
        return found[name].decode()
    except (KeyError, UnicodeDecodeError):
        return None


def _integer(found: Mapping[str, bytes], name: str, most: int) -> int | None:
    text = _text(found, name) or ""
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(_LONG))):
        return None
    return int(text) if int(text) <= most else None
