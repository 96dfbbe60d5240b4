"""Follows the result topics for the notifier: every partition, from a little before now, without a group and without commits."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import BusyError, RejectedError
from schemas.records import DeadLetter, DetectionResult, ImageRef
from schemas.topics import Topics
from sinks.base import Partition, ResultRun
from sinks.events import Event, failure_event, result_events

log = logging.getLogger(__name__)

# Public constants of the client, whatever their names look like.
_END = KafkaError._PARTITION_EOF  # noqa: SLF001
_TRUNCATED = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001

_PATIENCE_S = 0.2  # how late a request to stop is noticed


class Feed(Protocol):
    """Who is told: `sinks.notifier.Hub`."""

    async def publish(self, events: Sequence[Event]) -> None:
        """Take events of whole runs, in order; waited for, so that the tail never runs ahead of it."""

    def reset(self, reason: str) -> None:
        """Something between the last event and the next was missed."""

    def open(self) -> None:
        """The history has been read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TailPolicy:
    """Where the tail starts and how much it takes at a time.

    `window_s`: how far before now it starts. `window_records`: the same per partition where the broker has nothing that new or knows no
    timestamps. `run_records`: the most that is in memory decoded. `gather_ms`: how long records after a first one gather into its run.
    `refresh_s`: how soon new partitions are noticed.
    """

    window_s: float = 60.0
    window_records: int = 1_000
    run_records: int = 500
    gather_ms: float = 5.0
    fetch_kbytes: int = 16_384
    refresh_s: float = 10.0
    request_timeout_s: float = 5.0
    pause_s: float = 1.0


class Tail:
    """A thread that reads results and dead letters and hands them to a feed on its event loop.

    It survives the loss of brokers and registry: it waits and goes on where it was. What was deleted from the log before it
    was read is announced as a gap. Records that cannot be read are skipped and logged: the log keeps them. `group` is never joined nor
    committed to, but the client asks for its coordinator (DESCRIBE where there are ACLs).
    """

    def __init__(
        self,
        connection: KafkaConnection,
        codec: Codec,
        topics: Topics,
        policy: TailPolicy | None = None,
        group: str = "sightstream.notifier",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._connection, self._codec, self._topics = connection, codec, topics
        self._policy = policy or TailPolicy()
        self._group, self._now = group, now
        self._stopping = threading.Event()
        self._known: set[Partition] = set()
        self._behind: set[Partition] = set()
        self._started = False
        self._refresh_at = 0.0

    async def run(self, feed: Feed) -> None:
        """Read until `stop`, on a thread of its own. Call on the feed's event loop. Raises whatever ends the thread before."""
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, "tail")
        try:
            await asyncio.shield(loop.run_in_executor(executor, self._run, _Desk(feed, loop, self._stopping)))
        finally:
            self.stop()
            executor.shutdown(wait=False)

    def stop(self) -> None:
        """Let `run` return soon: what is being handed over is finished, nothing is lost since nothing is committed."""
        self._stopping.set()

    def _run(self, desk: "_Desk") -> None:
        consumer = Consumer(self._settings())
        opened = False
        try:
            while not self._stopping.is_set():
                self._adopt(consumer)
                self._hand_over(consumer, self._consume(consumer), desk)
                if not opened and self._started and not self._behind:
                    desk.call(desk.feed.open)
                    opened = True
        finally:
            consumer.close()

    def _consume(self, consumer: Consumer) -> list[Message]:
        """What has come, soon after its first record: `consume` alone waits until its time is up or its count is full."""
        first = consumer.poll(_PATIENCE_S)
        if first is None:
            return []
        return [first, *consumer.consume(self._policy.run_records - 1, self._policy.gather_ms / 1000)]

    def _settings(self) -> dict[str, Any]:
        return {
            **self._connection.librdkafka(),
            "client.id": self._group,
            "group.id": self._group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "queued.max.messages.kbytes": self._policy.fetch_kbytes,
            "fetch.max.bytes": self._policy.fetch_kbytes << 10,
            "reconnect.backoff.max.ms": 1000,
            "error_cb": lambda error: log.warning("tail: %s", error.str()),
        }

    def _adopt(self, consumer: Consumer) -> None:
        """Begin to read partitions that were not there before, when it is time to look for them."""
        if time.monotonic() < self._refresh_at:
            return
        try:
            fresh = sorted(self._listed(consumer) - self._known)
            places = [self._start(consumer, partition) for partition in fresh]
        except KafkaException as error:
            log.warning("tail: the brokers do not answer: %s", error)
            fresh, places = [], []
        if places:
            consumer.incremental_assign(places)
            self._known.update(fresh)
            self._started = True
        self._refresh_at = time.monotonic() + (self._policy.refresh_s if self._started else self._policy.pause_s)

    def _listed(self, consumer: Consumer) -> set[Partition]:
        found: set[Partition] = set()
        for name in (self._topics.detections, self._topics.dead_letters):
            listed = consumer.list_topics(name, timeout=self._policy.request_timeout_s).topics[name]
            if listed.error is not None:
                log.warning("tail: %s", listed.error.str(), extra={"topic": name})
            found.update(Partition(name, index) for index in listed.partitions)
        return found

    def _start(self, consumer: Consumer, partition: Partition) -> TopicPartition:
        """Where to begin: within the window at first, at the very start of what came later."""
        timeout = self._policy.request_timeout_s
        place = TopicPartition(partition.topic, partition.index)
        low, high = consumer.get_watermark_offsets(place, timeout=timeout)
        if self._started:
            return TopicPartition(partition.topic, partition.index, low)
        self._behind.add(partition)
        moment = round((self._now() - self._policy.window_s) * 1000)
        answers = consumer.offsets_for_times(
            [TopicPartition(partition.topic, partition.index, moment)], timeout=timeout
        )
        # Nothing that new, or (the embedded cluster) no idea of timestamps: the answer is the same.
        offset = answers[0].offset if answers[0].offset >= 0 else max(low, high - self._policy.window_records)
        return TopicPartition(partition.topic, partition.index, offset)

    def _hand_over(self, consumer: Consumer, messages: Sequence[Message], desk: "_Desk") -> None:
        good = []
        for message in messages:
            if message.error() is None:
                good.append(message)
            elif message.error().code() == _END:
                self._behind.discard(_place(message))
            elif message.error().code() == _TRUNCATED:
                self._skip_gap(consumer, _place(message), desk)
            else:
                log.warning("tail: %s", message.error().str())
        good.sort(key=_place)  # stable: offsets stay in order, one partition's records come together
        for partition, run in groupby(good, _place):
            events = self._events(partition, list(run))
            if events:
                desk.publish(events)

    def _skip_gap(self, consumer: Consumer, partition: Partition, desk: "_Desk") -> None:
        """Retention was faster, or the topic was made anew: go on at what there is, and say so."""
        log.error("tail: records of %s %d were deleted before they were read", partition.topic, partition.index)
        consumer.incremental_unassign([TopicPartition(partition.topic, partition.index)])
        self._known.discard(partition)
        self._refresh_at = 0.0
        desk.call(lambda: desk.feed.reset("log_truncated"))

    def _events(self, partition: Partition, messages: Sequence[Message]) -> list[Event]:
        """Events of consecutive records of one partition; waits while the registry does not answer."""
        decode = self._results if partition.topic == self._topics.detections else self._failures
        while not self._stopping.is_set():
            try:
                return decode(partition, messages)
            except BusyError as error:
                log.warning("tail: waits: %s", error)
                self._stopping.wait(max(error.retry_after_s, self._policy.pause_s))
        return []

    def _results(self, partition: Partition, messages: Sequence[Message]) -> list[Event]:
        decoded = self._codec.decode_run([message.value() for message in messages], DetectionResult)
        for at, error in decoded.rejected:
            _log_unread(partition, messages[at].offset(), error)
        offsets = np.array([message.offset() for message in messages], np.int64)
        stamps = np.array([message.timestamp()[1] for message in messages], np.int64)
        first, last = int(offsets[0]), int(offsets[-1])
        run = ResultRun(partition, first, last + 1, decoded.batch, offsets[decoded.index], stamps[decoded.index])
        return result_events(run)

    def _failures(self, partition: Partition, messages: Sequence[Message]) -> list[Event]:
        events = []
        for message in messages:
            if message.value() is None:
                continue  # marks a letter as redriven
            try:
                letter = self._codec.decode(message.value(), DeadLetter)
            except RejectedError as error:
                _log_unread(partition, message.offset(), error)
            else:
                if not self._is_silent(letter):
                    events.append(failure_event(letter, partition, message.offset()))
        return events

    def _is_silent(self, letter: DeadLetter) -> bool:
        """Whether it is of a reference that nobody is to be told about."""
        if letter.value is None:
            return False
        try:
            return self._codec.decode(letter.value, ImageRef).silent
        except RejectedError:
            return False


class _Desk:
    """The feed, as seen from the tail's thread: each call waits until the loop has done it, which is the back-pressure."""

    def __init__(self, feed: Feed, loop: asyncio.AbstractEventLoop, stopping: threading.Event) -> None:
        self.feed = feed
        self._loop, self._stopping = loop, stopping

    def publish(self, events: Sequence[Event]) -> None:
        done = asyncio.run_coroutine_threadsafe(self.feed.publish(events), self._loop)
        while not self._stopping.is_set():
            try:
                return done.result(timeout=0.5)
            except TimeoutError:
                if done.done():  # just now, or it failed with a TimeoutError of its own
                    return done.result()
        done.cancel()
        return None

    def call(self, action: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(action)


def _place(message: Message) -> Partition:
    return Partition(message.topic(), message.partition())


def _log_unread(partition: Partition, offset: int, error: RejectedError) -> None:
    place = {"topic": partition.topic, "partition": partition.index, "offset": offset, "code": error.reason}
    log.warning("tail: skips a record that cannot be read: %s", error, extra=place)
