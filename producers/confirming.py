"""Publishing from an event loop: what is sent is awaited without a thread for each, and nothing here ever blocks the loop."""

import asyncio
import contextlib
import logging
from collections import deque
from typing import Protocol

from confluent_kafka import KafkaError, Message

from producers.publisher import OnDelivery
from schemas.codec import AnyRecord, Codec
from schemas.errors import FatalError, RejectedError
from schemas.problems import ProblemError
from schemas.topics import Topics

log = logging.getLogger(__name__)

Confirmation = asyncio.Future[bool]
"""True once Kafka confirmed the record; False where it did not, and whether it was written is unknown. Never an exception."""

_RETRY_AFTER_S = 1.0
_MAX_BYTES = 32 << 20


class Sender(Protocol):
    """`producers.publisher.Publisher`."""

    codec: Codec
    topics: Topics

    def send(self, topic: str, key: bytes | None, value: bytes | None, on_delivery: OnDelivery) -> None:
        """Hand one record to the client."""

    def __len__(self) -> int:
        """Records handed over and not yet reported on."""


class Confirming:
    """A publisher for one event loop, which it must never block: so its buffer may not get full.

    `max_unconfirmed` records must be less than that takes (`publisher.max_buffered_records`), and 32 MiB as well (`max_buffered_kbytes`).
    """

    def __init__(self, publisher: Sender, max_unconfirmed: int) -> None:
        self._publisher, self._max_unconfirmed = publisher, max_unconfirmed
        self._bytes = 0
        self._reports: deque[tuple[Confirmation, int, KafkaError | None]] = deque()
        self._woken = False

    @property
    def topics(self) -> Topics:
        """Where records go."""
        return self._publisher.topics

    def send(self, topic: str, key: str, record: AnyRecord) -> Confirmation:
        """Hand a record to Kafka's client.

        Raises ProblemError: 503 `overloaded` while too many wait for their confirmation, 503 `not_ready` once the client is dead,
        400 `invalid_request` for a record that is too large.
        """
        if len(self._publisher) >= self._max_unconfirmed or self._bytes >= _MAX_BYTES:
            raise ProblemError(503, "overloaded", "Kafka is slower than what is submitted", _RETRY_AFTER_S)
        loop = asyncio.get_running_loop()
        confirmation: Confirmation = loop.create_future()
        value = self._publisher.codec.encode(record)

        def report(error: KafkaError | None, _: Message) -> None:
            # Reports come in bunches: one wake-up of the loop is enough for all that it finds.
            self._reports.append((confirmation, len(value), error))
            if not self._woken:
                self._woken = True
                with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
                    loop.call_soon_threadsafe(self._settle)

        try:
            self._publisher.send(topic, key.encode(), value, report)
        except RejectedError as error:
            raise ProblemError(400, "invalid_request", "the image's record is too large; say less with it") from error
        except FatalError as error:
            raise ProblemError(503, "not_ready", "the gateway is going away", _RETRY_AFTER_S) from error
        self._bytes += len(value)
        return confirmation

    def _settle(self) -> None:
        self._woken = False  # before looking: a report that comes now wakes us again
        while self._reports:
            confirmation, size, error = self._reports.popleft()
            self._bytes -= size
            if error is not None:
                log.error("a record was not confirmed", extra={"error": str(error)})
            if not confirmation.done():
                confirmation.set_result(error is None)
