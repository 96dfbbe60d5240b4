"""Carries results from their topic into a sink: decode whole runs, let the sink make them safe, then commit."""

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from confluent_kafka import KafkaException, Message

from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.errors import BusyError, FatalError, RejectedError
from schemas.failpoints import reach
from schemas.records import DetectionResult
from sinks.base import Partition, Progress, RefusedError, ResultRun, Sink
from streams import metrics
from streams.failures import Failed, FailureRouter
from streams.membership import Membership, MembershipPolicy
from streams.retries import Record

log = logging.getLogger(__name__)

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """`stage` names the sink in dead letters, metrics and failpoints; `records` is the most that is taken at once.

    `catch_up_s`: at a stop, so long at most it goes on to what was in the log by then. 0 where the log outlives the process: the next
    one reads on.
    """

    stage: str
    records: int = 5_000
    poll_s: float = 0.2
    tick_s: float = 1.0
    dead_letter_timeout_s: float = 60.0
    catch_up_s: float = 0.0


class Delivery:
    """One consumer of a group, one sink. Not thread-safe but for the event that ends `run`.

    Where a partition is read from is the sink's word; the group's offsets follow it. While the sink or the registry is busy, fetching
    pauses and nothing is dropped. A record that cannot be read becomes a dead letter, confirmed before its offset can become safe (and
    again after a crash in between: dead letters are at least once). Tombstones are skipped.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        publisher: Publisher,
        sink: Sink,
        policy: DeliveryPolicy,
        membership: MembershipPolicy,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._sink = sink
        self._failures = FailureRouter(publisher, membership.group, lambda: time.time_ns() // 1_000_000)
        self._policy = policy
        self._now = now
        self._waiting: deque[tuple[Partition, list[Message]]] = deque()
        self._unopened: set[Partition] = set()
        self._positions: dict[Partition, int] = {}  # of open partitions: the next offset to commit
        self._read: dict[Partition, int] = {}  # of the same: the next offset to read
        self._refused: dict[Partition, str] = {}
        self._held_until = 0.0
        self._held_for: str | None = None
        self._ticked_at = now()
        self._member = Membership(
            connection,
            [publisher.topics.detections],
            membership,
            assigned=self._assigned,
            revoked=self._revoked,
            lost=self._forget,
        )

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set, then flush, commit and leave the group.

        Raises FatalError or DeliveryError where that cannot go on: nothing is lost, the process must end.
        """
        try:
            while not stop.is_set():
                self.poll(self._policy.poll_s)
            self._catch_up()
            self._drain()
        finally:
            self.close()

    def poll(self, timeout_s: float) -> None:
        """Fetch for at most `timeout_s` and go on with whatever waits. To be called at least every five minutes."""
        messages, truncated = self._member.fetch(self._policy.records, timeout_s)
        for partition in truncated & self._positions.keys():
            self._reopen(partition)
        self._queue(messages)
        if self._now() < self._held_until:
            return
        try:
            self._advance()
        except BusyError as error:
            self._hold(str(error), error.retry_after_s)
        except KafkaException as error:
            self._hold(f"the brokers do not answer: {error}", _RETRY_S)
        else:
            self._held_for = None
            self._member.hold(held=False)

    def close(self) -> None:
        """Leave the group."""
        self._member.close()

    @property
    def positions(self) -> Mapping[Partition, int]:
        """Partitions that are being delivered, and up to where each is safe."""
        return dict(self._positions)

    def complaint(self) -> str | None:
        """What stands in the way, in one line, or None: a readiness probe."""
        return "; ".join(filter(None, [self._held_for, *self._refused.values()])) or None

    def _advance(self) -> None:
        self._open_partitions()
        if self._held_for is not None or self._now() - self._ticked_at >= self._policy.tick_s:
            self._settle(self._sink.tick())
            self._member.commit(self._positions)
            self._member.measure_lag(self._positions)
            self._ticked_at = self._now()
        while self._waiting:
            partition, messages = self._waiting[0]
            run = self._decode(partition, messages)
            self._waiting.popleft()
            self._settle(self._sink.write(run))

    def _queue(self, messages: Sequence[Message]) -> None:
        taken = defaultdict(list)
        for message in messages:
            taken[message.topic(), message.partition()].append(message)
        for place, run in taken.items():
            partition = Partition(*place)
            if partition in self._positions:
                self._waiting.append((partition, run))
                self._read[partition] = int(run[-1].offset()) + 1
                metrics.CONSUMED.labels(partition.topic, self._member.group).inc(len(run))

    def _decode(self, partition: Partition, messages: Sequence[Message]) -> ResultRun:
        offsets = np.fromiter((message.offset() for message in messages), np.int64, len(messages))
        stamps = np.fromiter((message.timestamp()[1] for message in messages), np.int64, len(messages))
        values = [message.value() for message in messages]
        decoded = self._publisher.codec.decode_run(values, DetectionResult)
        bad = [(messages[at], error) for at, error in decoded.rejected if values[at] is not None]
        self._bury(partition, bad)
        self._count(decoded.batch.num_rows, len(bad))
        run = (decoded.batch, offsets[decoded.index], stamps[decoded.index])
        return ResultRun(partition, int(offsets[0]), int(offsets[-1]) + 1, *run)

    def _bury(self, partition: Partition, bad: Sequence[tuple[Message, RejectedError]]) -> None:
        """Dead letters of records that cannot be read; returns when all are confirmed. Raises where they cannot be: stop, not skip."""
        if not bad:
            return
        unconfirmed: list[str] = []
        first, error = bad[0]
        place = {"topic": partition.topic, "partition": partition.index, "offset": first.offset()}
        log.warning("%d records cannot be read, the first: %s", len(bad), error, extra=place)
        for message, error in bad:
            self._failures.send(
                Failed(Record.of(message), error, self._policy.stage),
                lambda problem, _: unconfirmed.append(str(problem)) if problem else None,
            )
        self._publisher.flush(self._policy.dead_letter_timeout_s)
        if unconfirmed:
            raise FatalError(f"{len(unconfirmed)} dead letters were not confirmed: {unconfirmed[0]}")

    def _settle(self, progress: Progress) -> None:
        for partition in progress.superseded:
            self._reopen(partition)
        if progress.safe:
            self._positions.update(progress.safe)
            reach(f"{self._policy.stage}.before_commit")
            self._member.commit(self._positions)
            reach(f"{self._policy.stage}.after_commit")
            metrics.LAST_PROCESSED.set_to_current_time()

    def _open_partitions(self) -> None:
        """Open what is ours, but go back to the client after a while: each may take long, and whoever does not poll is put out."""
        enough = self._now() + self._policy.tick_s
        for partition in sorted(self._unopened):
            if self._now() > enough:
                return
            try:
                position = self._sink.open(partition, self._member.extent(partition))
            except RefusedError as error:
                log.error("refused %s [%d]: %s", partition.topic, partition.index, error)  # noqa: TRY400 - the line says it all
                self._refused[partition] = str(error)
            else:
                self._member.read_from(partition, position)
                self._positions[partition] = self._read[partition] = position
            self._unopened.discard(partition)
            self._member.commit(self._positions)

    def _reopen(self, partition: Partition) -> None:
        """Go on from wherever the sink then says: another writer went ahead, or the log lost what we wanted."""
        self._member.stop_reading(partition)
        self._forget(frozenset({partition}))
        self._unopened.add(partition)

    def _assigned(self, partitions: frozenset[Partition]) -> None:
        self._unopened |= partitions

    def _revoked(self, partitions: frozenset[Partition]) -> None:
        ours = partitions & self._positions.keys()
        try:
            self._settle(self._sink.flush(ours))
        except BusyError as error:
            log.warning("gives back %d partitions unflushed: %s", len(ours), error)
        self._forget(partitions)

    def _forget(self, partitions: frozenset[Partition]) -> None:
        for partition in partitions:
            self._sink.close(partition)
            self._positions.pop(partition, None)
            self._read.pop(partition, None)
            self._refused.pop(partition, None)
        self._unopened -= partitions
        self._waiting = deque(item for item in self._waiting if item[0] not in partitions)

    def _hold(self, why: str, retry_after_s: float) -> None:
        if self._held_for is None:
            log.warning("waits: %s", why)
        self._held_for = why
        self._held_until = self._now() + retry_after_s
        self._member.hold(held=True)

    def _catch_up(self) -> None:
        deadline = self._now() + self._policy.catch_up_s
        try:
            ends = (
                {place: self._member.extent(place).latest for place in self._positions}
                if self._policy.catch_up_s
                else {}
            )
        except KafkaException as error:
            log.warning("leaves without what may still be in the log: %s", error)
            return
        while self._now() < deadline and any(self._read.get(place, end) < end for place, end in ends.items()):
            self.poll(self._policy.poll_s)

    def _drain(self) -> None:
        try:
            self._advance()
            self._settle(self._sink.flush())
        except (BusyError, KafkaException) as error:
            log.warning("leaves without a flush, the next owner reads again: %s", error)

    def _count(self, good: int, bad: int) -> None:
        metrics.PROCESSED.labels(self._policy.stage, "written").inc(good)
        metrics.PROCESSED.labels(self._policy.stage, "rejected").inc(bad)
