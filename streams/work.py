"""One batch on its way through the stages: what was taken, what came of each record."""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import KafkaError, Message
from numpy.typing import NDArray

from detectors.base import Boxes, Image
from detectors.hosting import Loaded
from schemas.errors import BusyError, RejectedError
from schemas.records import DetectParameters
from schemas.rollouts import Arm
from streams.lanes import Part
from streams.routes import Route


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """Record `at` (position in the batch) has no result: why, and in which stage."""

    at: int
    error: RejectedError | BusyError
    stage: str


@dataclass(frozen=True, slots=True, eq=False)
class Seat:
    """Where a row goes: the version that makes its result, the route that says so, and the version that sees it as well."""

    loaded: Loaded
    route: Route
    shadow: Loaded | None = None


@dataclass(slots=True, eq=False)
class Share:
    """What one version sees of a batch: row i is record `index[i]`, its image `images[i]`, in the order of the references.

    `routes`: how each row came here; None where nothing was to be chosen. `boxes` has one entry a row once detection is done.
    """

    loaded: Loaded
    refs: pa.RecordBatch
    index: NDArray[np.int32]
    images: Sequence[Image]
    parameters: Sequence[DetectParameters]
    routes: Sequence[Route] | None = None
    boxes: Boxes | None = None
    inference_ms: float = 0.0

    def __len__(self) -> int:
        return len(self.index)

    def drop(self, rows: Collection[int]) -> None:
        """Forget these rows, of which there are no boxes (their failures are entered by the caller)."""
        kept = [row for row in range(len(self.index)) if row not in rows]
        self.refs, self.index = self.refs.take(pa.array(kept, pa.int32())), self.index[kept]
        self.images = [self.images[row] for row in kept]
        self.parameters = [self.parameters[row] for row in kept]
        self.routes = self.routes and [self.routes[row] for row in kept]


@dataclass(slots=True, eq=False)
class Work:
    """A batch. Every record ends either in one of `shares` or in `failures`, never in both.

    `taken_at_us`: when the batch was gathered (epoch microseconds). Until it is split into shares, row i of `refs` is record `index[i]`,
    its image `images[i]`, and goes to `seats[i]`, or all to `loaded`. `shadows`: what other versions see beside what users get, once
    that is on its way; `deliveries` waits for both.
    """

    parts: Sequence[Part]
    records: Sequence[Any]
    taken_at_us: int
    refs: pa.RecordBatch
    index: NDArray[np.int32]
    failures: list[Failure] = field(default_factory=list)
    images: Sequence[Image] = ()
    parameters: Sequence[DetectParameters] = ()
    loaded: Loaded | None = None
    seats: Sequence[Seat] | None = None
    shares: list[Share] = field(default_factory=list)
    shadows: list[Share] = field(default_factory=list)
    deliveries: "Deliveries | None" = None

    @property
    def submitted_s(self) -> NDArray[np.float64]:
        """When each image with a result was submitted (epoch seconds)."""
        columns = [share.refs.column("submitted_at").cast(pa.int64()).to_numpy() for share in self.shares]
        seconds: NDArray[np.float64] = np.concatenate([np.empty(0), *columns]) / 1e6
        return seconds

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drop the rows where the mask is false (their failures are entered by the caller). Before images are loaded."""
        self.refs = self.refs.filter(pa.array(mask))
        self.index = self.index[mask]
        self.seats = self.seats and list(compress(self.seats, mask))

    def split(self) -> None:
        """Give each version its share, once the images are there."""
        if self.seats is None:
            if self.loaded is not None and self.refs.num_rows:
                self.shares = [Share(self.loaded, self.refs, self.index, self.images, self.parameters)]
            return
        rows_of: dict[Loaded, list[int]] = {}
        for row, seat in enumerate(self.seats):
            rows_of.setdefault(seat.loaded, []).append(row)
        self.shares = [self._share(loaded, rows) for loaded, rows in rows_of.items()]

    def plan_shadows(self) -> None:
        """Enter what other versions are to see: images that have their result, and no others."""
        if self.seats is None or all(seat.shadow is None for seat in self.seats):
            return
        done = {at for share in self.shares for at in share.index.tolist()}
        rows_of: dict[Loaded, list[int]] = {}
        for row, seat in enumerate(self.seats):
            if seat.shadow is not None and int(self.index[row]) in done:
                rows_of.setdefault(seat.shadow, []).append(row)
        self.shadows = [self._share(loaded, rows) for loaded, rows in rows_of.items()]
        for share in self.shadows:
            share.routes = [replace(route, arm=Arm.SHADOW) for route in share.routes or ()]

    def _share(self, loaded: Loaded, rows: Sequence[int]) -> Share:
        assert self.seats is not None
        return Share(
            loaded,
            self.refs.take(pa.array(rows, pa.int32())),
            self.index[rows],
            [self.images[row] for row in rows],
            [self.parameters[row] for row in rows],
            [self.seats[row].route for row in rows],
        )


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

    def spare(self, count: int) -> None:
        """So many will not be sent after all."""
        with self._lock:
            self._left -= count
            finished = self._left == 0 and count > 0
        if finished:
            self._done()
