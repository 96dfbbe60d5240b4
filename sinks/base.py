"""What delivery asks of a sink: `write` returns when the run is taken, and only what `flush` returned is safe."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One partition of one topic."""

    topic: str
    index: int


@dataclass(frozen=True, slots=True, eq=False)
class ResultRun:
    """Consecutive results of one partition, as one Arrow batch.

    `batch`: columns of `schemas.arrow.DETECTION_RESULT`, rows in offset order. `offsets` and `timestamps_ms` (int64, one a row) are the
    Kafka record's. The run covers offsets `first` up to, not including, `next`: gaps (compaction, transactions, rejected
    records) lie within.
    """

    partition: Partition
    first: int
    next: int
    batch: pa.RecordBatch
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]


class Sink(Protocol):
    """Keeps results where people look. Writing a run twice changes nothing."""

    def open(self, partition: Partition, topic_id: str, committed: int | None) -> int | None:
        """Take a partition over, finish what a predecessor left, and return the next offset wanted (None: the earliest there is)."""

    def write(self, run: ResultRun) -> Mapping[Partition, int]:
        """Take a run; return partitions that became safe by it, with the next offset of each (often empty)."""

    def flush(self, partitions: frozenset[Partition] | None = None) -> Mapping[Partition, int]:
        """Make everything taken so far safe (of all, or of these partitions), and return each one's next offset."""

    def close(self, partition: Partition) -> None:
        """Forget a partition; what was not flushed will be read again by its next owner."""
