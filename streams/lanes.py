"""Two queues in front of one detector: online first, bulk fills the rest and is never starved. Pure."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schemas.records import Lane
from streams.ledger import Claim


@dataclass(slots=True, eq=False)
class Run:
    """Records fetched together from one partition, in offset order; those before `begun` are in batches already."""

    records: Sequence[Any]
    claim: Claim[Any]
    begun: int = 0

    @property
    def waiting(self) -> int:
        """Records not yet in a batch."""
        return len(self.records) - self.begun


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The stretch of a run that one batch took."""

    run: Run
    records: Sequence[Any]


class Lanes:
    """What waits for the detector. Order within a partition is kept; between lanes, `online` goes first.

    `bulk_share` (0..1) is the part of each batch that bulk may count on while it waits. What a batch is too small to give is credited to
    the next, so that the share holds for batches of one as well.
    """

    def __init__(self, bulk_share: float) -> None:
        self._share = bulk_share
        self._credit = 0.0
        self._queues: dict[Lane, deque[Run]] = {lane: deque() for lane in Lane}
        self.waiting: dict[Lane, int] = dict.fromkeys(Lane, 0)

    def put(self, lane: Lane, run: Run) -> None:
        """Queue a run behind what waits in its lane."""
        self._queues[lane].append(run)
        self.waiting[lane] += run.waiting

    def gather(self, most: int, with_bulk: int | None = None) -> list[Part]:
        """Take the next batch: up to `most` records, as parts of runs.

        Bulk fills it up to `with_bulk` of them, and has its share anyway.
        """
        reserve = self._reserve(most)
        parts = self._take(Lane.ONLINE, most - reserve)
        filled = most if with_bulk is None else min(most, with_bulk)
        parts += self._take(Lane.BULK, max(reserve, filled - _size(parts)))
        parts += self._take(Lane.ONLINE, most - _size(parts))
        return parts

    @property
    def queued(self) -> list[Run]:
        """The runs that are not wholly in batches, oldest first within a lane."""
        return [run for queue in self._queues.values() for run in queue]

    def take_back(self) -> list[Run]:
        """Empty the queues; the runs say by `begun` how much of them is in batches."""
        runs = self.queued
        for lane, queue in self._queues.items():
            queue.clear()
            self.waiting[lane] = 0
        return runs

    def __len__(self) -> int:
        return sum(self.waiting.values())

    def _reserve(self, most: int) -> int:
        """How many places of this batch are bulk's. Credit is not saved up while bulk has nothing."""
        if not self.waiting[Lane.BULK]:
            self._credit = 0.0
            return 0
        self._credit = min(self._credit + self._share * most, 2.0 * most)
        reserve = min(int(self._credit), self.waiting[Lane.BULK])
        self._credit -= reserve
        return reserve

    def _take(self, lane: Lane, most: int) -> list[Part]:
        parts: list[Part] = []
        queue = self._queues[lane]
        while queue and most > 0:
            run = queue[0]
            count = min(most, run.waiting)
            parts.append(Part(run, run.records[run.begun : run.begun + count]))
            run.begun += count
            most -= count
            self.waiting[lane] -= count
            if not run.waiting:
                queue.popleft()
        return parts


def _size(parts: Sequence[Part]) -> int:
    return sum(len(part.records) for part in parts)
