"""A `Sink` in memory: the reference for what the protocol means, in as few lines as it takes."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from sinks.base import Extent, Partition, Progress, RefusedError, ResultRun

Row = tuple[int, str]
"""Offset and result id."""


@dataclass(slots=True)
class Chain:
    """What is kept of a partition: rows of offsets below `next`."""

    topic_id: str
    next: int
    rows: list[Row] = field(default_factory=list)


@dataclass(slots=True)
class MemoryStore:
    """What outlives a sink, as a lake does."""

    chains: dict[Partition, Chain] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def rows(self) -> list[tuple[str, int, int, str]]:
        """(topic, partition, offset, id) of everything kept, sorted."""
        return sorted((p.topic, p.index, *row) for p, chain in self.chains.items() for row in chain.rows)


@dataclass(slots=True)
class _Taken:
    """Rows from `base` up to `next` that are not kept yet."""

    base: int
    next: int
    rows: list[Row] = field(default_factory=list)


class MemorySink:
    """Keeps rows in a store that several sinks may share; whoever continues a chain first wins, the others are superseded."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._taken: dict[Partition, _Taken] = {}

    def open(self, partition: Partition, extent: Extent) -> int:
        """Take a partition over; see `Sink.open`."""
        with self._store.lock:
            chain = self._store.chains.setdefault(partition, Chain(extent.topic_id, extent.earliest))
        if chain.topic_id != extent.topic_id:
            raise RefusedError(f"{partition.topic} was created anew")
        if chain.next > extent.latest:
            raise RefusedError(f"{partition.topic} was cut short")
        position = max(chain.next, extent.earliest)
        self._taken[partition] = _Taken(chain.next, position)
        return position

    def write(self, run: ResultRun) -> Progress:
        """Take what was not taken before."""
        taken = self._taken[run.partition]
        ids: Sequence[str] = run.batch.column("id").to_pylist()
        rows = zip(run.offsets.tolist(), ids, strict=True)
        taken.rows += [row for row in rows if row[0] >= taken.next]
        taken.next = max(taken.next, run.next)
        return Progress()

    def tick(self) -> Progress:
        """Everything has waited long enough."""
        return self.flush()

    def flush(self, partitions: frozenset[Partition] | None = None) -> Progress:
        """Keep what was taken."""
        wanted = [partition for partition in self._taken if partitions is None or partition in partitions]
        superseded = frozenset(partition for partition in wanted if not self._keep(partition))
        for partition in superseded:
            self.close(partition)
        return Progress({p: self._taken[p].next for p in wanted if p not in superseded}, superseded)

    def close(self, partition: Partition) -> None:
        """Forget what is not kept."""
        self._taken.pop(partition, None)

    def _keep(self, partition: Partition) -> bool:
        taken, chain = self._taken[partition], self._store.chains[partition]
        with self._store.lock:
            if chain.next != taken.base:
                return False
            chain.rows += taken.rows
            chain.next = taken.next
        self._taken[partition] = _Taken(taken.next, taken.next)
        return True
