"""Follows the topic `keys`, so that every gateway knows within a second what was handed out and what was revoked."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from infra.key_ring import KeyRing
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.control import ApiKey
from schemas.errors import BusyError, RejectedError

log = logging.getLogger(__name__)

_POLL_S = 0.2
_ASK_S = 5.0
_REQUEST_S = 2.0
_PAUSE_S = 1.0
_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of the client, whatever its name looks like


class KeyFollower:
    """A thread that folds the topic into a ring: all of it at first, then whatever is added.

    It survives the loss of the brokers. How old the knowledge is `age_s` tells: it asks every few seconds where the topic ends, so that
    "nothing new" and "no answer" are not the same. `group` is never joined, but the client asks for its coordinator.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        codec: Codec,
        topic: str,
        group: str = "sightstream.keys",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ring = KeyRing()
        self._connection, self._codec, self._topic, self._group, self._now = connection, codec, topic, group, now
        self._ends: dict[int, int] = {}
        self._position: dict[int, int] = {}
        self._asked_at = float("-inf")
        self._current_at: float | None = None

    @property
    def age_s(self) -> float | None:
        """Seconds since it was known that nothing is missing; None before that was known at all."""
        return None if self._current_at is None else self._now() - self._current_at

    def complaint(self) -> str | None:
        """None once the topic has been read; for readiness."""
        return "has not read the API keys" if self._current_at is None else None

    def run(self, stop: threading.Event) -> None:
        """Follow until `stop`; on a thread of its own."""
        consumer = Consumer(self._settings())
        try:
            while not stop.is_set():
                if self._now() - self._asked_at >= _ASK_S or not self._ends:
                    self._ask(consumer, stop)
                message = consumer.poll(_POLL_S)
                if message is not None:
                    self._take(message, stop)
                self._judge()
        finally:
            consumer.close()

    def _settings(self) -> dict[str, Any]:
        return {
            **self._connection.librdkafka(),
            "client.id": self._group,
            "group.id": self._group,  # never joined nor committed to
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,  # a compacted topic may end in records that are no longer there
            "fetch.wait.max.ms": 500,
            "reconnect.backoff.max.ms": 1000,
            "error_cb": lambda error: log.warning("keys: %s", error.str()),
        }

    def _ask(self, consumer: Consumer, stop: threading.Event) -> None:
        """Where the topic ends now; begin to read it where that has not begun."""
        try:
            if not self._position:
                self._begin(consumer)
            places = {index: TopicPartition(self._topic, index) for index in self._position}
            ends = {index: consumer.get_watermark_offsets(place, timeout=_REQUEST_S) for index, place in places.items()}
        except KafkaException as error:
            log.warning("keys: the brokers do not answer: %s", error)
            stop.wait(_PAUSE_S)
            return
        self._asked_at = self._now()
        self._ends = {index: high for index, (_, high) in ends.items()}
        for index, (low, _) in ends.items():
            self._position[index] = max(self._position[index], low)

    def _begin(self, consumer: Consumer) -> None:
        listed = consumer.list_topics(self._topic, timeout=_REQUEST_S).topics[self._topic]
        if listed.error is not None or not listed.partitions:
            raise KafkaException(listed.error or KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        self._position = dict.fromkeys(listed.partitions, 0)
        consumer.assign([TopicPartition(self._topic, index, 0) for index in listed.partitions])

    def _take(self, message: Message, stop: threading.Event) -> None:
        error = message.error()
        if error is None:
            self._fold_patiently(message, stop)
            self._position[message.partition()] = message.offset() + 1
        elif error.code() == _END:
            self._position[message.partition()] = message.offset()
        else:
            log.warning("keys: %s", error.str())

    def _fold_patiently(self, message: Message, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                return self._fold(message)
            except BusyError as error:  # the registry: without it nobody knows what this record says
                log.warning("keys: waits: %s", error)
                stop.wait(max(error.retry_after_s, _PAUSE_S))
        return None

    def _fold(self, message: Message) -> None:
        if message.value() is None:
            self.ring.forget((message.key() or b"").decode(errors="replace"))
            return
        try:
            self.ring.fold(self._codec.decode(message.value(), ApiKey))
        except RejectedError as error:
            place = {"partition": message.partition(), "offset": message.offset(), "code": error.reason}
            log.error("keys: a record cannot be read: %s", error, extra=place)  # noqa: TRY400 - the trace says nothing more

    def _judge(self) -> None:
        """Nothing is missing as of when it was asked, once all up to the ends of then has been read."""
        if self._ends and all(self._position[index] >= end for index, end in self._ends.items()):
            self._current_at = max(self._current_at or self._asked_at, self._asked_at)
