"""Fixed batch sizes, and what becomes of them where a device has no memory for one; pure."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Chunk:
    """So many images, `count`, run as a batch of `size`; the rest of it is padding whose results nobody reads."""

    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Buckets:
    """The batch sizes that a network is run at, ascending.

    A few of them keep memory from growing with every new size, and let a compiler or an optimisation profile know all shapes.
    """

    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)

    @classmethod
    def exact(cls, largest: int) -> "Buckets":
        """Every size up to `largest`: nothing is padded."""
        return cls(tuple(range(1, largest + 1)))

    def plan(self, count: int, bound: int) -> list[Chunk]:
        """Split `count` images into batches of these sizes, none above `bound`, the largest first.

        A batch is padded up where padding is at most a quarter of it; otherwise it is the largest one that is full. So the worst
        case computes a third more than it was asked for, and a handful of images does not become a handful of calls.
        """
        sizes = [size for size in self.sizes if size <= bound] or [self.sizes[0]]
        chunks: list[Chunk] = []
        while count:
            above = next((size for size in sizes if size >= count), None)
            full = next((size for size in reversed(sizes) if size <= count), above)
            size = above if above is not None and 4 * (above - count) <= above else full
            assert size is not None, "a size is above, or one is below"
            chunks.append(Chunk(min(count, size), size))
            count -= chunks[-1].count
        return chunks


class Batcher:
    """Runs batches in buckets; where the device runs out of memory it halves the batch, and never asks for as much again.

    `exhausted(error)` tells such an error from others; `relieve()` is called after one, before the next try.
    The bound holds for this object's life: memory that another process took and gave back is not found out.
    """

    def __init__(
        self,
        buckets: Buckets,
        exhausted: Callable[[Exception], bool],
        relieve: Callable[[], None] = lambda: None,
    ) -> None:
        self._buckets = buckets
        self._exhausted = exhausted
        self._relieve = relieve
        self._bound = buckets.sizes[-1]

    @property
    def bound(self) -> int:
        """The largest batch that has not failed for want of memory."""
        return self._bound

    def run(self, items: Sequence[Item], call: Callable[[Sequence[Item], int], Sequence[Result]]) -> list[Result]:
        """One result for each item, in order; `call(items, size)` runs some of them as a batch of `size`.

        Raises what `call` raises, an error for want of memory only where the smallest bucket fails.
        """
        results: list[Result] = []
        while len(results) < len(items):
            chunk = self._buckets.plan(len(items) - len(results), self._bound)[0]
            try:
                results += call(items[len(results) : len(results) + chunk.count], chunk.size)
            except Exception as error:
                if not self._exhausted(error) or chunk.size <= self._buckets.sizes[0]:
                    raise
                self._lower(chunk.size)
            else:
                continue
            # Outside the handler: the error's frames hold the very tensors that there was no room for.
            self._relieve()
        return results

    def _lower(self, failed: int) -> None:
        half = max(size for size in self._buckets.sizes if size <= max(failed // 2, self._buckets.sizes[0]))
        self._bound = min(self._bound, half)
        log.warning("no memory on the device for a batch of %d; at most %d from now on", failed, self._bound)
