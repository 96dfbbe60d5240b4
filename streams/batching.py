"""The adaptive micro-batcher: as soon as the detector has a free slot, take what waits.

A batch grows by itself to what arrived while the one before it ran, so no timer is needed; an idle detector waits a little longer only
where its latency curve says that this saves device time (`streams/sizing.py`). Gathering and decoding batch k+1 overlaps the inference of
batch k, and begins as late as that allows (`streams/underway.py`): until then it grows. Batches are published in the order in which they
were gathered, whatever order they finish in: that keeps the order per key.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from schemas.records import Lane
from streams.lanes import Lanes, Part, Run
from streams.sizing import Batching, Capacity, batch_size, size_with_bulk, worth_waiting_s
from streams.underway import Underway
from streams.work import Work

# Where an image came on the online lane, more are to be expected for so long.
_LIVE_S = 10.0


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

    def shadow(self, work: Work) -> None:
        """What is left to do for nobody's eyes, where there are `work.shadows`; on a device thread. The next batches do not wait for it."""


class Batcher:
    """Drives batches from the lanes through a step, as many at a time on the detector as its capacity says. Runs on one event loop.

    `crashed` is called once with what a stage raised: from then on nothing is published any more.
    """

    def __init__(
        self,
        step: Step,
        policy: Batching,
        capacity: Capacity,
        crashed: Callable[[BaseException], None],
    ) -> None:
        self.lanes = Lanes(policy.bulk_share)
        self.room = asyncio.Event()
        self._step = step
        self._policy = policy
        self._capacity = capacity
        self._crashed = crashed
        self._broken = False
        self._arrivals = Arrivals()
        self._live_until = float("-inf")
        self._underway = Underway(capacity.concurrency, capacity.curve)
        self._arrived = asyncio.Event()
        begun = capacity.concurrency + policy.lookahead
        self._slots = asyncio.Semaphore(begun)
        self._unpublished = asyncio.Semaphore(2 * begun)  # while Kafka is slower than the detector, the detector waits
        self._devices = ThreadPoolExecutor(capacity.concurrency, "device")
        self._publishing = ThreadPoolExecutor(1, "publishing")
        self._batches: set[asyncio.Task[None]] = set()

    def put(self, lane: Lane, run: Run) -> None:
        """Queue a run; wakes the batcher."""
        self.lanes.put(lane, run)
        self._arrivals.add(run.waiting)
        if lane is Lane.ONLINE:
            self._live_until = time.monotonic() + _LIVE_S
        self._arrived.set()

    def has_room(self, lane: Lane) -> bool:
        """Whether a lane may be fed; `room` is set when that may have changed."""
        return self.lanes.waiting[lane] < self._policy.max_waiting

    async def run(self) -> None:
        """Make batches until cancelled."""
        last: asyncio.Future[None] | None = None
        while True:
            await self._unpublished.acquire()
            await self._slots.acquire()
            await self._wait_for_records()
            is_live = time.monotonic() < self._live_until
            parts = self.lanes.gather(self._size(), size_with_bulk(self._policy, self._capacity) if is_live else None)
            self.room.set()
            published: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            batch = asyncio.create_task(self._carry(parts, last, published))
            last = published
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)

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
        """Let an idle detector wait for more, where that pays; a busy one's next batch grows while it can."""
        if self._batches:
            while len(self.lanes) < self._size() and (spare_s := self._underway.spare_s()) > 0:
                await self._wait_for_arrival(spare_s)
            return
        waiting = len(self.lanes)
        wait_s = worth_waiting_s(self._policy, self._capacity, waiting, self._arrivals.per_s)
        enough, deadline = waiting + round(wait_s * self._arrivals.per_s), time.monotonic() + wait_s
        while len(self.lanes) < enough and (left := deadline - time.monotonic()) > 0:
            await self._wait_for_arrival(left)

    def _size(self) -> int:
        return batch_size(self._policy, self._capacity, self.lanes.waiting[Lane.ONLINE])

    async def _wait_for_arrival(self, timeout_s: float | None) -> None:
        self._arrived.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), timeout_s)

    async def _carry(
        self, parts: list[Part], before: "asyncio.Future[None] | None", published: "asyncio.Future[None]"
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._underway.begin(published)
            try:
                work = await self._step.prepare(parts)
                self._underway.prepared(published)
                work = await loop.run_in_executor(self._devices, self._infer, work, published)
            finally:
                self._underway.leave(published)
                self._slots.release()
                self._arrived.set()  # a device is free: whoever lets a batch grow looks again
            if before is not None:
                await before
            if not self._broken:
                await loop.run_in_executor(self._publishing, self._step.publish, work)
            published.set_result(None)
            if work.shadows and not self._broken:
                await loop.run_in_executor(self._devices, self._step.shadow, work)
        except Exception as error:  # noqa: BLE001 - whatever it was, it ends the process without a commit
            if not self._broken:
                self._broken = True
                self._crashed(error)
        finally:
            if not published.done():
                published.set_result(None)
            self._unpublished.release()

    def _infer(self, work: Work, batch: "asyncio.Future[None]") -> Work:
        self._underway.start(batch, len(work.index))
        return self._step.infer(work)
