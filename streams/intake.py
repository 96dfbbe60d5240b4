"""Takes runs in and says which offsets are safe: ties the transport, the ledger and the batcher together."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from faust.types import TP

from schemas import failpoints
from schemas.records import Lane
from streams import metrics
from streams.batching import Batcher
from streams.lanes import Run
from streams.ledger import Ledger
from streams.work import Work

log = logging.getLogger(__name__)


class LaneIntake:
    """Implements `streams.runs.Intake` for the two lanes. Lives on the event loop; `settled` may be called from any thread.

    A rebalance or a stop waits up to `drain_s` for the batches that began; what is not safe by then is read again by its next owner.
    """

    def __init__(self, lanes: Mapping[str, Lane], drain_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self.batcher: Batcher
        self._lanes = lanes
        self._drain_s = drain_s
        self._now = now
        self._ledger: Ledger[TP] = Ledger()
        self._accepted: dict[TP, int] = {}
        self._progress = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def room(self) -> asyncio.Event:
        """Set when a lane may have got room."""
        return self.batcher.room

    @property
    def safe(self) -> Mapping[TP, int]:
        """The next offset to commit of each partition."""
        return self._ledger.safe

    def has_room(self, topic: str) -> bool:
        """Whether the topic's lane may be fed."""
        return self.batcher.has_room(self._lanes[topic])

    def accept(self, tp: TP, records: Sequence[Any]) -> None:
        """Take a run in: from now on its partition's safe offset stays below it until it is done."""
        self._accepted[tp] = records[-1].offset + 1
        claim = self._ledger.take(tp, self._accepted[tp], len(records), self._now())
        self.batcher.put(self._lanes[tp.topic], Run(records, claim))
        metrics.IN_FLIGHT.inc(len(records))

    def settled(self, work: Work) -> None:
        """Every outcome of the batch is confirmed by Kafka."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: nothing is committed any more
            self._loop.call_soon_threadsafe(self._settle, work)

    @property
    def taken(self) -> Mapping[TP, int]:
        """The next offset of each partition that is in no batch yet; of partitions from which anything came."""
        taken = dict(self._accepted)
        for run in reversed(self.batcher.lanes.queued):
            taken[run.claim.partition] = run.records[run.begun].offset
        return taken

    @property
    def oldest_s(self) -> float:
        """Seconds since the oldest record that is not safe yet was taken."""
        return 0.0 if self._ledger.oldest is None else self._now() - self._ledger.oldest

    def give_back(self) -> None:
        """Give up what is in no batch yet."""
        given = 0
        self._accepted = dict(self.taken)
        for run in self.batcher.lanes.take_back():
            given += run.waiting
            kept_to = run.records[run.begun - 1].offset + 1 if run.begun else None
            self._ledger.give_back(run.claim, run.waiting, kept_to)
        metrics.IN_FLIGHT.dec(given)

    async def settle(self) -> None:
        """Wait until everything that began is safe, at most `drain_s`."""
        try:
            async with asyncio.timeout(self._drain_s):
                while not self._ledger.idle:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            log.warning("batches still running after %g s are given up; their images will be read again", self._drain_s)

    def forget(self) -> None:
        """Drop offsets and claims: the partitions may be somebody else's now."""
        self._ledger.forget()
        self._accepted.clear()
        metrics.IN_FLIGHT.set(0)

    def _settle(self, work: Work) -> None:
        for part in work.parts:
            self._ledger.settle(part.run.claim, len(part.records))
        metrics.IN_FLIGHT.dec(len(work.records))
        metrics.END_TO_END.observe(time.time() - work.submitted_s)
        self._progress.set()
        failpoints.reach("worker.confirmed")
