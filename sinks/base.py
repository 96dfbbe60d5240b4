"""What delivery asks of a sink: `write` returns when the run is taken, and only what a `Progress` calls safe is safe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.errors import SightstreamError


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One partition of one topic."""

    topic: str
    index: int


@dataclass(frozen=True, slots=True, eq=False)
class ResultRun:
    """Consecutive results of one partition, as one Arrow batch.

    `batch`: columns of `schemas.arrow.DETECTION_RESULT`, rows in offset order. `offsets` and `timestamps_ms` (int64, one a row) are the
    Kafka record's; a timestamp of -1 means that the record has none. The run covers offsets `first` up to, not including, `next`:
    gaps (compaction, transactions, tombstones, rejected records) lie within, and there may be no row at all.
    """

    partition: Partition
    first: int
    next: int
    batch: pa.RecordBatch
    offsets: NDArray[np.int64]
    timestamps_ms: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Extent:
    """What the log of a partition holds: offsets `earliest` up to, not including, `latest`.

    `topic_id` tells a topic from another of the same name that was created later.
    """

    topic_id: str
    earliest: int
    latest: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What a call achieved.

    `safe`: partition -> next offset; everything below it is kept for good, so it may be committed.
    `superseded`: partitions in which another writer went ahead. The sink has dropped and closed them; open them again.
    """

    safe: Mapping[Partition, int] = field(default_factory=dict)
    superseded: frozenset[Partition] = frozenset()

    def merged(self, other: "Progress") -> "Progress":
        """Both, `other` being the later."""
        return Progress({**self.safe, **other.safe}, self.superseded | other.superseded)


class RefusedError(SightstreamError):
    """What a sink already keeps of this partition contradicts the log or itself: an operator must look. Other partitions go on."""


class Sink(Protocol):
    """Keeps results where people look. Called from one thread.

    Any call may raise `BusyError`: the storage is not ready. Nothing is lost or half visible by that, a run that was being written
    is taken; write no more, and call `tick` again after `retry_after_s` until it returns.
    """

    def open(self, partition: Partition, extent: Extent) -> int:
        """Take a partition over, finish what a predecessor left, and return the next offset wanted.

        Raises `RefusedError` where the partition must be left alone, `BusyError` where it may be tried again.
        """

    def write(self, run: ResultRun) -> Progress:
        """Take a run of an open partition. Offsets below those already taken are ignored: writing a run twice changes nothing."""

    def tick(self) -> Progress:
        """Make safe what has waited long enough. To be called about once a second, and whenever `BusyError` said so."""

    def flush(self, partitions: frozenset[Partition] | None = None) -> Progress:
        """Make everything taken so far safe (of all, or of these partitions); `safe` names each of them that is open."""

    def close(self, partition: Partition) -> None:
        """Forget a partition; what was not flushed will be read again by its next owner. Closing twice is fine."""
