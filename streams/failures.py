"""Where a record goes that has no result: to the next retry topic while its budget lasts, else to the dead letters."""

import contextlib
import importlib.metadata
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from producers.publisher import OnDelivery, Publisher
from schemas.errors import BusyError, FatalError, RejectedError, SightstreamError
from schemas.records import DeadLetter, Header, ImageRef
from streams import metrics
from streams.retry_headers import Headers, Origin, RetryState

_LONGEST_MESSAGE, _LONGEST_KEY = 1000, 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failed:
    """A record as it was read (an aiokafka `ConsumerRecord`, or anything with its attributes) and why it failed."""

    record: Any
    error: RejectedError | BusyError
    stage: str


class FailureRouter:
    """Sends failed records on, with their original bytes. `now_ms` is the epoch in milliseconds."""

    def __init__(self, publisher: Publisher, group: str, now_ms: Callable[[], int]) -> None:
        self._publisher = publisher
        self._group = group
        self._now_ms = now_ms
        self._version = importlib.metadata.version("sightstream")

    def send(self, failed: Failed, on_delivery: OnDelivery) -> None:
        """Hand the record to a retry topic or the dead letters; it is safe once `on_delivery` was called without an error."""
        record, error = failed.record, failed.error
        state = retry_state(record)
        if isinstance(error, BusyError):
            following = state.next(error.reason, self._now_ms(), error.retry_after_s, self._publisher.topics)
            if following is not None and self._retry(record, following, on_delivery):
                metrics.RETRIES.labels(following[0], error.reason).inc()
                return
        letter = self._letter(failed, state)
        self._bury(letter, record.key, on_delivery)
        metrics.DEAD_LETTERS.labels(record.topic, error.reason).inc()
        log.warning("dead letter: %s", letter.message, extra=_told(letter))

    def _retry(self, record: Any, following: tuple[str, Headers], on_delivery: OnDelivery) -> bool:
        """Send a record to its retry topic; False for one that does not fit there with the headers it needs."""
        topic, headers = following
        try:
            self._publisher.send(topic, record.key, record.value, on_delivery, headers)
        except RejectedError:
            return False
        return True

    def _bury(self, letter: DeadLetter, key: bytes | None, on_delivery: OnDelivery) -> None:
        """Write a dead letter; of one that its explanation made too large, first the value goes, then key and headers."""
        topic, encode = self._publisher.topics.dead_letters, self._publisher.codec.encode
        smaller = replace(letter, value=None)
        for last, attempt in enumerate((letter, smaller, replace(smaller, key=None, headers=()))):
            try:
                self._publisher.send(
                    topic, key if last < 2 else (key or b"")[:_LONGEST_KEY], encode(attempt), on_delivery
                )
            except RejectedError:
                continue
            return
        raise FatalError("a dead letter without value, key and headers does not fit on its topic")

    def _letter(self, failed: Failed, state: RetryState) -> DeadLetter:
        record, now = failed.record, self._now_ms()
        ref = self._readable(record.value)
        return DeadLetter(
            code=failed.error.reason,
            message=str(failed.error)[:_LONGEST_MESSAGE].encode(errors="replace").decode(),
            stage=failed.stage,
            attempts=state.attempt + 1,
            image_id=ref.id if ref else "",
            tenant=ref.tenant if ref else "",
            batch_id=ref.batch_id if ref else None,
            value=record.value,
            key=record.key,
            headers=tuple(Header(name=name, value=value) for name, value in state.others),
            source_topic=state.origin.topic,
            source_partition=state.origin.partition,
            source_offset=state.origin.offset,
            source_timestamp_ms=state.origin.timestamp_ms,
            consumer_group=self._group,
            service_version=self._version,
            first_failed_at=_moment(state.first_failure_ms or now),
            failed_at=_moment(now),
        )

    def _readable(self, value: bytes | None) -> ImageRef | None:
        with contextlib.suppress(SightstreamError):
            return self._publisher.codec.decode(value, ImageRef)
        return None


def retry_state(record: Any) -> RetryState:
    """What the record's headers say about earlier tries."""
    return RetryState.from_headers(
        record.headers, Origin(record.topic, record.partition, record.offset, record.timestamp)
    )


def _told(letter: DeadLetter) -> dict[str, object]:
    """The fields of a log line."""
    names = ("image_id", "batch_id", "code", "stage", "attempts", "source_topic", "source_partition", "source_offset")
    return {name: getattr(letter, name) for name in names}


def _moment(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)
