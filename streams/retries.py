"""Takes records out of the retry topics when they are due, and puts them back on their lanes."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from producers.publisher import Publisher
from schemas import failpoints
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import BusyError, DeliveryError, FatalError, RejectedError
from schemas.records import ImageRef
from streams.failures import Failed, FailureRouter
from streams.membership import HOPELESS
from streams.retry_headers import Headers, Origin, RetryState

log = logging.getLogger(__name__)

_STAGE = "retry"
_AT_ONCE = 500
_POLL_S = 0.5
_HOLD_MS = 1_000
_REPORT_S = 200.0  # beyond any delivery timeout, below max.poll.interval.ms


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwarderPolicy:
    """`group`: the consumer group. `instance_id`: stable per worker slot, so that a restart does not wait for the session."""

    group: str
    instance_id: str | None = None


@dataclass(slots=True)
class _Held:
    """What was fetched from one partition and is not due yet, in offset order; the partition is paused meanwhile."""

    messages: deque[Message] = field(default_factory=deque)
    not_before_ms: int = 0
    paused: bool = True  # a partition may come back paused from an earlier assignment: the first look resumes it


@dataclass(frozen=True, slots=True)
class Record:
    """A record of librdkafka's under the names that `streams.failures` knows."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @classmethod
    def of(cls, message: Message) -> Self:
        """Copy what a message holds."""
        place = message.topic(), message.partition(), message.offset(), message.timestamp()[1]
        return cls(*place, message.key(), message.value(), message.headers() or [])


class _Report:
    """A delivery report that can be waited for."""

    def __init__(self) -> None:
        self.future: Future[None] = Future()

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(DeliveryError(f"a record for {message.topic()} was not confirmed: {error}"))


class RetryForwarder:
    """Waits, per partition, until the first record is due, and forwards it with its bytes, key and headers as they are.

    At least once: offsets are committed only after the delivery report. Memory holds one fetch of each partition at most. Not
    thread-safe, except that `run` ends when its event is set. A record that cannot be read goes to the dead letters; while
    the schema registry does not answer, the partition waits.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        publisher: Publisher,
        codec: Codec,
        policy: ForwarderPolicy,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._publisher = publisher
        self._topics = publisher.topics
        self._delays_ms = {topic: int(wait.total_seconds() * 1000) for topic, wait in self._topics.retries.items()}
        self._codec = codec
        self._failures = FailureRouter(publisher, policy.group, now_ms)
        self._now_ms = now_ms
        self._held: dict[tuple[str, int], _Held] = {}
        self._consumer = Consumer(_settings(connection, policy))
        self._consumer.subscribe(
            list(self._delays_ms), on_assign=self._assigned, on_revoke=self._gone, on_lost=self._gone
        )

    def run(self, stop: threading.Event) -> None:
        """Forward until `stop` is set, then leave the group.

        Raises DeliveryError or FatalError when forwarding cannot go on: nothing is lost, the caller must end the process or
        start a new forwarder.
        """
        try:
            while not stop.is_set():
                self.poll(_POLL_S)
        finally:
            self.close()

    def poll(self, timeout_s: float) -> int:
        """Fetch for at most `timeout_s`, forward what is due, and return how many records that was once they are confirmed.

        Must be called more often than every five minutes. Raises DeliveryError or FatalError; nothing is committed then.
        """
        for message in self._consumer.consume(_AT_ONCE, timeout=self._patience_s(timeout_s)):
            self._take(message)
        forwarded = self._forward_due()
        self._keep_flowing()
        return forwarded

    def close(self) -> None:
        """Leave the group; what is held will be read again by the next owner."""
        self._consumer.close()

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is None:
            self._held.setdefault(_partition(message), _Held()).messages.append(message)
        elif error.fatal() or error.code() in HOPELESS:
            raise FatalError(f"the retry consumer failed for good: {error}")
        elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public name for it
            log.warning("retry consumer: %s", error)

    def _forward_due(self) -> int:
        """Send what is due of every partition, wait for all reports, then commit."""
        now_ms = self._now_ms()
        reports: list[Future[None]] = []
        following: list[TopicPartition] = []
        for partition, held in self._held.items():
            last = self._send_due(held, now_ms, reports)
            if last is not None:
                following.append(TopicPartition(*partition, last.offset() + 1))
        _wait(reports)
        if following:
            failpoints.reach("retry.forwarded")
            self._commit(following)
        return len(reports)

    def _send_due(self, held: _Held, now_ms: int, reports: list["Future[None]"]) -> Message | None:
        last = None
        while held.messages and self._due_ms(held) <= now_ms:
            try:
                reports.append(self._send(held.messages[0]))
            except BusyError as error:
                held.not_before_ms = now_ms + max(_HOLD_MS, int(error.retry_after_s * 1000))
                log.warning("retry topic waits: %s", error)
                return last
            last = held.messages.popleft()
        return last

    def _due_ms(self, held: _Held) -> int:
        """When the first record is due: as its header says, but never later than its topic's delay after it was written."""
        message = held.messages[0]
        asked_ms = RetryState.from_headers(message.headers(), _origin(message)).not_before_ms
        latest_ms: int = message.timestamp()[1] + self._delays_ms[message.topic()]
        return max(held.not_before_ms, min(asked_ms, latest_ms))

    def _send(self, message: Message) -> "Future[None]":
        report = _Report()
        try:
            ref = self._codec.decode(message.value(), ImageRef)
        except RejectedError as error:
            self._failures.send(Failed(Record.of(message), error, _STAGE), report)
            return report.future
        topic = self._topics.lane(ref.lane)
        try:
            self._publisher.send(topic, message.key(), message.value(), report, message.headers() or [])
        except RejectedError as error:  # written by somebody with larger records
            self._failures.send(Failed(Record.of(message), error, _STAGE), report)
        return report.future

    def _commit(self, following: list[TopicPartition]) -> None:
        """Tell the group; where that fails the records are forwarded once more, which is allowed."""
        try:
            self._consumer.commit(offsets=following, asynchronous=False)
        except KafkaException as error:
            log.warning("retry consumer could not commit: %s", error)

    def _keep_flowing(self) -> None:
        """Fetch from partitions whose records are all forwarded, and from no other."""
        for partition, held in self._held.items():
            if held.paused != bool(held.messages):
                held.paused = not held.paused
                (self._consumer.pause if held.paused else self._consumer.resume)([TopicPartition(*partition)])

    def _patience_s(self, timeout_s: float) -> float:
        due = [self._due_ms(held) for held in self._held.values() if held.messages]
        return max(0.0, min([timeout_s, *((due_ms - self._now_ms()) / 1000 for due_ms in due)]))

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._held[partition.topic, partition.partition] = _Held()

    def _gone(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._held.pop((partition.topic, partition.partition), None)


def _settings(connection: KafkaConnection, policy: ForwarderPolicy) -> dict[str, str | int | bool]:
    return {
        **connection.librdkafka(),
        "group.id": policy.group,
        **({"group.instance.id": policy.instance_id} if policy.instance_id else {}),
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 1_000,
        "topic.metadata.refresh.interval.ms": 5_000,  # a topic that is created after the worker started is found soon
        "queued.min.messages": _AT_ONCE,
        "queued.max.messages.kbytes": 4_096,
    }


def _wait(reports: list["Future[None]"]) -> None:
    for report in reports:
        try:
            report.result(timeout=_REPORT_S)
        except TimeoutError as error:
            raise DeliveryError(f"no delivery report within {_REPORT_S:g} s") from error


def _partition(message: Message) -> tuple[str, int]:
    return message.topic(), message.partition()


def _origin(message: Message) -> Origin:
    return Origin(message.topic(), message.partition(), message.offset(), message.timestamp()[1])
