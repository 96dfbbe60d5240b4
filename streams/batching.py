"""The adaptive micro-batcher: as soon as the detector has a free slot, take what waits.

A batch grows by itself to what arrived while the one before it ran, so no timer is needed; waiting a little longer is an option for
backends to which bigger batches are worth it. Gathering and decoding batch k+1 overlaps the inference of batch k. Batches are published in
the order in which they were gathered, whatever order they finish in: that keeps the order per key.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from schemas.records import Lane
from streams.lanes import Lanes, Part, Run
from streams.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingPolicy:
    """How batches are made.

    `max_batch`: the most records of a batch (0: what the detector takes). `bulk_share`: the part of a batch that bulk may count on while
    it waits. `lookahead`: batches being fetched and decoded beyond those on the detector. `max_waiting`: records queued per lane before
    fetching pauses. With `max_wait_ms` above 0, an idle detector waits up to that long for `worthwhile` records, if they can be expected in
    time.
    """

    max_batch: int = 0
    bulk_share: float = 0.1
    lookahead: int = 1
    max_waiting: int = 5000
    max_wait_ms: float = 0.0
    worthwhile: int = 1

    def linger_s(self, waiting: int, arrivals_per_s: float) -> float:
        """How long an idle detector does well to wait for what is missing: 0 where that will not arrive in time."""
        missing = min(self.worthwhile, self.max_batch or self.worthwhile) - waiting
        if missing <= 0 or arrivals_per_s <= 0:
            return 0.0
        needed = missing / arrivals_per_s
        return needed if needed * 1000 <= self.max_wait_ms else 0.0


class Arrivals:
    """A running estimate of records a second, forgetting with a time constant of one second."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last = now()
        self.per_s = 0.0

    def add(self, count: int) -> None:
        """Note that so many records arrived now."""
        now = self._now()
        elapsed = max(now - self._last, 1e-3)
        weight = min(1.0, elapsed)
        self.per_s += weight * (count / elapsed - self.per_s)
        self._last = now


class Step(Protocol):
    """The stages of a batch. Every record of a batch has its outcome in Kafka's hands when `publish` returns."""

    async def prepare(self, parts: list[Part]) -> Work:
        """Decode the references, fetch and decode the images."""

    def infer(self, work: Work) -> Work:
        """Run the detector; on a device thread."""

    def publish(self, work: Work) -> None:
        """Send each record's outcome; on the publishing thread, in order of gathering."""


class Batcher:
    """Drives batches from the lanes through a step, `concurrency` at a time on the detector. Runs on one event loop.

    `crashed` is called once with what a stage raised: from then on nothing is published any more.
    """

    def __init__(
        self,
        step: Step,
        policy: BatchingPolicy,
        max_batch: int,
        concurrency: int,
        crashed: Callable[[BaseException], None],
    ) -> None:
        self.lanes = Lanes(policy.bulk_share)
        self.room = asyncio.Event()
        self._step = step
        self._policy = policy
        self._max_batch = min(max_batch, policy.max_batch or max_batch)
        self._crashed = crashed
        self._broken = False
        self._arrivals = Arrivals()
        self._arrived = asyncio.Event()
        begun = concurrency + policy.lookahead
        self._slots = asyncio.Semaphore(begun)
        self._unpublished = asyncio.Semaphore(2 * begun)  # while Kafka is slower than the detector, the detector waits
        self._devices = ThreadPoolExecutor(concurrency, "device")
        self._publishing = ThreadPoolExecutor(1, "publishing")
        self._batches: set[asyncio.Task[None]] = set()

    def put(self, lane: Lane, run: Run) -> None:
        """Queue a run; wakes the batcher."""
        self.lanes.put(lane, run)
        self._arrivals.add(run.waiting)
        self._arrived.set()

    def has_room(self, lane: Lane) -> bool:
        """Whether a lane may be fed; `room` is set when that may have changed."""
        return self.lanes.waiting[lane] < self._policy.max_waiting

    async def run(self) -> None:
        """Make batches until cancelled."""
        last: asyncio.Task[None] | None = None
        while True:
            await self._unpublished.acquire()
            await self._slots.acquire()
            await self._wait_for_records()
            parts = self.lanes.gather(self._max_batch)
            self.room.set()
            last = asyncio.create_task(self._carry(parts, last))
            self._batches.add(last)
            last.add_done_callback(self._batches.discard)

    async def close(self) -> None:
        """Wait for the batches that began, then let the threads end."""
        while self._batches:
            await asyncio.wait(self._batches)
        for pool in (self._devices, self._publishing):
            pool.shutdown()

    async def _wait_for_records(self) -> None:
        while not self.lanes:
            await self._wait_for_arrival(None)
            await self._linger()

    async def _linger(self) -> None:
        wait_s = 0.0 if self._batches else self._policy.linger_s(len(self.lanes), self._arrivals.per_s)
        deadline = time.monotonic() + wait_s
        while 0 < len(self.lanes) < self._policy.worthwhile and (left := deadline - time.monotonic()) > 0:
            await self._wait_for_arrival(left)

    async def _wait_for_arrival(self, timeout_s: float | None) -> None:
        self._arrived.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), timeout_s)

    async def _carry(self, parts: list[Part], before: "asyncio.Task[None] | None") -> None:
        loop = asyncio.get_running_loop()
        try:
            try:
                work = await self._step.prepare(parts)
                work = await loop.run_in_executor(self._devices, self._step.infer, work)
            finally:
                self._slots.release()
            if before is not None:
                await asyncio.wait([before])
            if not self._broken:
                await loop.run_in_executor(self._publishing, self._step.publish, work)
        except Exception as error:  # noqa: BLE001 - whatever it was, it ends the process without a commit
            if not self._broken:
                self._broken = True
                self._crashed(error)
        finally:
            self._unpublished.release()
