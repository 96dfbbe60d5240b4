"""Which offsets are safe to commit: pure bookkeeping, so that it can be shown never to pass an unsafe record."""

import contextlib
from collections import defaultdict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


@dataclass(slots=True, eq=False)
class Claim(Generic[P]):
    """Consecutive records of one partition that were taken `at` a moment: `left` are not safe yet. `next`: the offset after the last."""

    partition: P
    next: int
    left: int
    at: float = 0.0
    forgotten: bool = False


class Ledger(Generic[P]):
    """A queue of claims per partition; a partition's safe offset moves only over claims that are wholly safe, oldest first.

    Not thread-safe: everything happens on the event loop. Claims must be taken in offset order.
    """

    def __init__(self) -> None:
        self._claims: dict[P, deque[Claim[P]]] = defaultdict(deque)
        self._safe: dict[P, int] = {}

    def take(self, partition: P, next_offset: int, records: int, at: float = 0.0) -> Claim[P]:
        """Enter `records` (at least one) records that end before `next_offset`, taken `at` a moment of the caller's clock."""
        claim = Claim(partition, next_offset, records, at)
        self._claims[partition].append(claim)
        return claim

    def settle(self, claim: Claim[P], records: int) -> None:
        """Call when so many more of a claim's records are safe. A claim that was forgotten meanwhile changes nothing."""
        claim.left -= records
        self._advance(claim.partition)

    def give_back(self, claim: Claim[P], records: int, next_offset: int | None) -> None:
        """Give up a claim's last `records`, which were not begun: they will be read again.

        `next_offset` is where the kept part ends, None where nothing is kept. Later claims of the partition must be given back too.
        """
        if next_offset is None:
            with contextlib.suppress(ValueError):  # forgotten already
                self._claims[claim.partition].remove(claim)
            return
        claim.next = next_offset
        self.settle(claim, records)

    def forget(self) -> None:
        """Drop every claim and safe offset: the partitions are somebody else's now."""
        for claims in self._claims.values():
            for claim in claims:
                claim.forgotten = True
        self._claims.clear()
        self._safe.clear()

    @property
    def safe(self) -> dict[P, int]:
        """The next offset to commit of each partition that has advanced; everything below it is safe."""
        return self._safe

    @property
    def oldest(self) -> float | None:
        """When the oldest claim that is not safe yet was taken."""
        return min((claims[0].at for claims in self._claims.values() if claims), default=None)

    @property
    def idle(self) -> bool:
        """Whether nothing that was taken is still unsafe."""
        return not any(self._claims.values())

    def _advance(self, partition: P) -> None:
        claims = self._claims[partition]
        while claims and claims[0].left <= 0:
            self._safe[partition] = claims.popleft().next
