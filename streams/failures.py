"""Where a record goes that has no result: to the next retry topic while its budget lasts, else to the dead letters."""

import contextlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from producers.publisher import OnDelivery, Publisher
from schemas.errors import BusyError, RejectedError, SightstreamError
from schemas.records import DeadLetter, Header, ImageRef
from streams import metrics
from streams.retry_headers import Origin, RetryState

_LONGEST_MESSAGE = 1000


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
            if following is not None:
                topic, headers = following
                self._publisher.send(topic, record.key, record.value, on_delivery, headers)
                metrics.RETRIES.labels(topic, error.reason).inc()
                return
        self._bury(self._letter(failed, state), record.key, on_delivery)
        metrics.DEAD_LETTERS.labels(record.topic, error.reason).inc()

    def _bury(self, letter: DeadLetter, key: bytes | None, on_delivery: OnDelivery) -> None:
        """Write a dead letter; one that its explanation made too large goes without the original bytes."""
        topic, encode = self._publisher.topics.dead_letters, self._publisher.codec.encode
        try:
            self._publisher.send(topic, key, encode(letter), on_delivery)
        except RejectedError:
            self._publisher.send(topic, key, encode(replace(letter, value=None)), on_delivery)

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


def _moment(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)
