"""One batch on its way through the stages: what was taken, what came of each record."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import KafkaError, Message
from numpy.typing import NDArray

from detectors.base import Boxes, Image
from schemas.errors import BusyError, RejectedError
from schemas.records import DetectParameters
from streams.lanes import Part


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """Record `at` (position in the batch) has no result: why, and in which stage."""

    at: int
    error: RejectedError | BusyError
    stage: str


@dataclass(slots=True, eq=False)
class Work:
    """A batch. Every record ends either in `refs` (row i is record `index[i]`, its image `images[i]`) or in `failures`, never in both.

    `taken_at_us`: when the batch was gathered (epoch microseconds). `boxes` has one entry a row of `refs` once detection is done.
    """

    parts: Sequence[Part]
    records: Sequence[Any]
    taken_at_us: int
    refs: pa.RecordBatch
    index: NDArray[np.int32]
    failures: list[Failure] = field(default_factory=list)
    images: Sequence[Image] = ()
    parameters: Sequence[DetectParameters] = ()
    boxes: Boxes | None = None
    inference_ms: float = 0.0

    @property
    def submitted_s(self) -> NDArray[np.float64]:
        """When each image of `refs` was submitted (epoch seconds)."""
        seconds: NDArray[np.float64] = self.refs.column("submitted_at").cast(pa.int64()).to_numpy() / 1e6
        return seconds

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drop the rows where the mask is false (their failures are entered by the caller)."""
        self.refs = self.refs.filter(pa.array(mask))
        self.index = self.index[mask]


class Deliveries:
    """Counts the delivery reports of one batch: hand `report` to librdkafka, whose thread calls it.

    Calls `done` once when all `expected` records are confirmed, or `failed` at the first that is not.
    """

    __slots__ = ("_done", "_failed", "_left", "_lock")

    def __init__(self, expected: int, done: Callable[[], None], failed: Callable[[KafkaError], None]) -> None:
        self._left = expected
        self._done = done
        self._failed = failed
        self._lock = threading.Lock()

    def report(self, error: KafkaError | None, _: Message) -> None:
        """Take one delivery report."""
        if error is not None:
            self._failed(error)
            return
        with self._lock:
            self._left -= 1
            finished = self._left == 0
        if finished:
            self._done()
