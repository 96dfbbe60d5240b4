"""Carries the log into the result store: whole stretches a transaction, positions and rows together, so that each record counts once."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from confluent_kafka import KafkaException, Message

from schemas.connection import KafkaConnection
from schemas.errors import BusyError
from schemas.failpoints import reach
from sinks.base import Partition
from sinks.store_fold import Advance, Changes
from sinks.store_positions import SupersededError
from sinks.store_writes import StoreWriter, UnstorableError
from streams import metrics
from streams.membership import Membership, MembershipPolicy
from streams.projected import LogReader, Run, followed_topics

log = logging.getLogger(__name__)

STAGE = "store"
FAILPOINTS = ("store.before_write", "store.after_write")
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionPolicy:
    """`records` is the most that a transaction takes; `linger_s` how long it waits for more once there is one.

    `tick_s`: how often positions are told to the group, and that nothing is new to the store; `sweep_s`: how often what has expired is
    forgotten. `catch_up_s`: at a stop, so long at most it goes on to what was in the log by then.
    """

    records: int = 5_000
    poll_s: float = 0.2
    linger_s: float = 0.01
    tick_s: float = 1.0
    sweep_s: float = 60.0
    catch_up_s: float = 0.0


class Projection:
    """One consumer of a group that writes to the store. Not thread-safe but for the event that ends `run`.

    Several may run: partitions are shared, and the store lets one write at a time. While database, registry or brokers are away, fetching
    pauses and nothing is dropped. A record that cannot be read or kept is passed over and counted.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        reader: LogReader,
        store: StoreWriter,
        policy: ProjectionPolicy,
        membership: MembershipPolicy,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`membership` must tell ends (`tells_end`)."""
        self._reader, self._store, self._policy, self._now = reader, store, policy, now
        self._waiting: deque[Run] = deque()
        self._unopened: set[Partition] = set()
        self._positions: dict[Partition, int] = {}  # of open partitions: up to where the store has them
        self._read: dict[Partition, int] = {}  # of the same: the next offset to read
        self._held_until = 0.0
        self._held_for: str | None = None
        self._ticked_at = self._swept_at = now()
        self._member = Membership(
            connection,
            followed_topics(reader.topics),
            membership,
            assigned=self._assigned,
            revoked=self._forget,
            lost=self._forget,
        )

    def run(self, stop: threading.Event) -> None:
        """Project until `stop` is set, then leave the group. Raises FatalError, or the database's error, where it cannot go on."""
        try:
            while not stop.is_set():
                self.poll(self._policy.poll_s)
            self._catch_up()
            self._member.commit(self._positions)
        finally:
            self.close()

    def poll(self, timeout_s: float) -> None:
        """Fetch for at most `timeout_s` and write whatever waits. To be called at least every five minutes."""
        for most, patience_s in ((1, timeout_s), (self._policy.records, self._policy.linger_s)):
            messages, truncated = self._member.fetch(most, patience_s)
            for partition in truncated & self._positions.keys():
                self._reopen(partition)
            self._queue(messages)
            if not messages:
                break
        if self._now() >= self._held_until:
            self._try_to_advance()

    def close(self) -> None:
        """Leave the group."""
        self._member.close()

    @property
    def positions(self) -> Mapping[Partition, int]:
        """Partitions that are being projected, and up to where each is in the store."""
        return dict(self._positions)

    def complaint(self) -> str | None:
        """What stands in the way, in one line, or None: a readiness probe."""
        return self._held_for or (None if self._positions else "has no partitions yet")

    def _try_to_advance(self) -> None:
        try:
            self._open_partitions()
            self._write_waiting()
            self._tick()
        except SupersededError as error:
            log.warning("store: %s", error)
            for partition in error.partitions & self._positions.keys():
                self._reopen(partition)
        except BusyError as error:
            self._hold(str(error), error.retry_after_s)
        except KafkaException as error:
            self._hold(f"the brokers do not answer: {error}", _RETRY_S)
        else:
            self._held_for = None
            self._member.hold(held=False)

    def _queue(self, messages: Sequence[Message]) -> None:
        taken: dict[Partition, list[Message]] = {}
        for message in messages:
            taken.setdefault(Partition(message.topic(), message.partition()), []).append(message)
        for partition, run in taken.items():
            if partition in self._positions:
                self._waiting.append((partition, run))
                self._read[partition] = int(run[-1].offset()) + 1
                metrics.CONSUMED.labels(partition.topic, self._member.group).inc(len(run))

    def _write_waiting(self) -> None:
        while self._waiting:
            runs: list[Run] = []
            count = 0
            while len(runs) < len(self._waiting) and count < self._policy.records:
                runs.append(self._waiting[len(runs)])
                count += len(runs[-1][1])
            self._write_runs(runs)
            for _ in runs:
                self._waiting.popleft()

    def _write_runs(self, runs: Sequence[Run]) -> None:
        """Write runs, in halves where the database refuses some value in them, until the record at fault is alone: it is passed over."""
        changes = self._reader.changes(runs, self._positions)
        if not changes.advances:
            return
        bad, good = self._reader.rejected, sum(len(run) for _, run in runs) - self._reader.rejected
        try:
            self._write(changes)
        except UnstorableError as error:
            first, rest = _halves(runs)
            if rest:
                self._write_runs(first)
                self._write_runs(rest)
                return
            place = {"topic": runs[0][0].topic, "partition": runs[0][0].index, "offset": runs[0][1][0].offset()}
            log.error("store: passes over a record: %s", error, extra=place)  # noqa: TRY400 - the line says it all
            self._write(Changes(advances=changes.advances))
            bad, good = 1, 0
        metrics.PROCESSED.labels(STAGE, "written").inc(good)
        metrics.PROCESSED.labels(STAGE, "rejected").inc(bad)
        metrics.LAST_PROCESSED.set_to_current_time()

    def _write(self, changes: Changes) -> None:
        reach("store.before_write")
        with metrics.STORE_TRANSACTION.time():
            self._store.write(changes)
        reach("store.after_write")
        self._positions.update({step.partition: step.after for step in changes.advances})

    def _tick(self) -> None:
        if self._held_for is None and self._now() - self._ticked_at < self._policy.tick_s:
            return
        self._ticked_at = self._now()
        self._say_what_is_read()
        self._member.commit(self._positions)
        self._member.measure_lag(self._positions)
        if self._now() - self._swept_at >= self._policy.sweep_s and not self._store.sweep():
            self._swept_at = self._now()

    def _say_what_is_read(self) -> None:
        """Write that there is nothing new where that is so, which also moves positions over records that nobody is shown."""
        now_us = time.time_ns() // 1_000
        steps = [
            Advance(partition, position, max(position, self._member.ends[partition]), now_us)
            for partition, position in sorted(self._positions.items())
            if partition in self._member.ends and self._member.ends[partition] >= self._read[partition]
        ]
        if steps:
            self._write(Changes(advances=tuple(steps)))

    def _open_partitions(self) -> None:
        """Open what is ours, but go back to the client after a while: whoever does not poll is put out of the group."""
        enough = self._now() + self._policy.tick_s
        for partition in sorted(self._unopened):
            if self._now() > enough:
                return
            position = self._store.open(partition, self._member.extent(partition))
            self._member.read_from(partition, position)
            self._positions[partition] = self._read[partition] = position
            self._unopened.discard(partition)

    def _reopen(self, partition: Partition) -> None:
        self._member.stop_reading(partition)
        self._forget(frozenset({partition}))
        self._unopened.add(partition)

    def _assigned(self, partitions: frozenset[Partition]) -> None:
        self._unopened |= partitions

    def _forget(self, partitions: frozenset[Partition]) -> None:
        for partition in partitions:
            self._positions.pop(partition, None)
            self._read.pop(partition, None)
        self._unopened -= partitions
        self._waiting = deque(run for run in self._waiting if run[0] not in partitions)

    def _hold(self, why: str, retry_after_s: float) -> None:
        if self._held_for != why:
            log.warning("store: waits: %s", why)
        self._held_for = why
        self._held_until = self._now() + retry_after_s
        self._member.hold(held=True)

    def _catch_up(self) -> None:
        deadline = self._now() + self._policy.catch_up_s
        ends: dict[Partition, int] = {}
        if self._policy.catch_up_s:
            with suppress(KafkaException):
                ends = {partition: self._member.extent(partition).latest for partition in self._positions}
        while self._now() < deadline and any(self._positions.get(place, end) < end for place, end in ends.items()):
            self.poll(self._policy.poll_s)


def _halves(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """The first and the second half of the records, in order; the second is empty where there is one record or none."""
    half = sum(len(messages) for _, messages in runs) // 2
    first: list[Run] = []
    rest: list[Run] = []
    for partition, messages in runs:
        here = max(0, min(half, len(messages)))
        first += [(partition, messages[:here])] if here else []
        rest += [(partition, messages[here:])] if here < len(messages) else []
        half -= here
    return (first, rest) if first else (rest, [])
