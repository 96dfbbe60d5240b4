"""How long a detector's calls take by batch size: measured when it is loaded, stretched by what its calls really take."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from detectors.around import Around
from detectors.base import Boxes, Detector, Image, ModelInfo
from detectors.cores import usable_cores
from schemas.records import DetectParameters

log = logging.getLogger(__name__)

_SIDE = 640
_ROUNDS = 3
_STRETCH_BOUNDS = (0.1, 20.0)
_STRETCH_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class LatencyCurve:
    """Milliseconds of one call by the number of its images.

    `points`: (images, ms), sizes rising, times never falling. Between points the time is linear, beyond the last in proportion to size.
    """

    points: tuple[tuple[int, float], ...]

    def ms(self, images: int) -> float:
        """What a call of so many images takes."""
        sizes, times = zip(*self.points, strict=True)
        if images > sizes[-1]:
            return float(times[-1] * images / sizes[-1])
        return float(np.interp(images, (0, *sizes), (0.0, *times)))

    def largest_within(self, limit_ms: float, most: int) -> int:
        """The largest call, of 1 to `most` images, that takes no longer than `limit_ms`; 1 where none is that short."""
        low, high = 1, max(1, most)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.ms(middle) <= limit_ms else (low, middle - 1)
        return low

    def stretched(self, factor: float) -> "LatencyCurve":
        """The same shape, with every time multiplied."""
        return LatencyCurve(tuple((size, ms * factor) for size, ms in self.points))


class Curve(Protocol):
    """A latency curve that may be another one the next time."""

    @property
    def now(self) -> LatencyCurve:
        """As it is now."""


class LearnedCurve:
    """A measured curve that follows the calls as they really go, beside other calls and beside the decoders.

    Only the height is learnt, as one factor with a memory of about ten calls; the shape stays as measured.
    """

    def __init__(self, measured: LatencyCurve) -> None:
        self._measured = measured
        self._stretch = 1.0
        self.now = measured

    def observe(self, images: int, ms: float) -> None:
        """Note what a call took. Nothing is learnt from calls without images or without a duration."""
        expected = self._measured.ms(images)
        if expected <= 0 or ms <= 0:
            return
        ratio = min(max(ms / expected, _STRETCH_BOUNDS[0]), _STRETCH_BOUNDS[1])
        self._stretch += _STRETCH_WEIGHT * (ratio - self._stretch)
        self.now = self._measured.stretched(self._stretch)


class Paced(Detector, Protocol):
    """A detector that knows how long its calls take."""

    @property
    def curve(self) -> LearnedCurve:
        """By batch size; follows the calls as they go."""


class PacedDetector(Around[Detector]):
    """A detector whose curve learns from each of its calls; one that raises teaches nothing."""

    def __init__(
        self, detector: Detector, measured: LatencyCurve, now: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__(detector)
        self._now = now
        self.curve = LearnedCurve(measured)

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes of each image, in order."""
        began = self._now()
        boxes = self._detector.detect(images, parameters)
        self.curve.observe(len(images), (self._now() - began) * 1000)
        return boxes


def measure(detector: Detector, budget_s: float = 1.0, now: Callable[[], float] = time.perf_counter) -> LatencyCurve:
    """Time calls of 1, 2, 4 ... `max_batch` grey canvases: the shortest of three each, as a busy machine only ever adds to them.

    Sizes that the budget does not reach are left to the curve's extrapolation. Raises what the detector raises.
    """
    width, height = detector.model.canvas or (_SIDE, _SIDE)
    grey = Image(np.full((height, width, 3), 114, np.uint8))
    began, points = now(), list[tuple[int, float]]()
    for size in _sizes(detector.max_batch):
        # A call of twice the images takes at most twice as long.
        if points and now() - began + _ROUNDS * 2 * points[-1][1] / 1000 > budget_s:
            break
        took = _time(detector, [grey] * size, now)
        points.append((size, max(took, points[-1][1]) if points else took))
    return LatencyCurve(tuple(points))


def recall_or_measure(detector: Detector, directory: Path) -> LatencyCurve:
    """The curve that an earlier process measured for this model on this device, else a fresh one, kept for the next.

    A worker that takes over from one that died should not spend a second on what is known. A file that is not readable is as none.
    """
    path = directory / f"curve-{_fingerprint(detector.model, detector.max_batch)}.json"
    try:
        return _read(path)
    except (OSError, ValueError, TypeError, KeyError):
        curve = measure(detector)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}.new")  # another worker may be at it at the same time
        fresh.write_text(json.dumps({"model": detector.model.name, "points": curve.points}), "utf-8")
        fresh.replace(path)
    except OSError as error:
        log.warning("the latency curve cannot be kept: %s", error)
    return curve


def _sizes(most: int) -> list[int]:
    return sorted({*(1 << power for power in range(max(1, most).bit_length())), most})


def _time(detector: Detector, images: list[Image], now: Callable[[], float]) -> float:
    parameters = [DetectParameters()] * len(images)
    times = []
    for _ in range(_ROUNDS):
        began = now()
        detector.detect(images, parameters)
        times.append((now() - began) * 1000)
    return min(times)


def _fingerprint(model: ModelInfo, most: int) -> str:
    said = (model.digest, model.backend, model.precision, model.device, model.canvas, most, usable_cores())
    return hashlib.blake2b(repr(said).encode(), digest_size=12).hexdigest()


def _read(path: Path) -> LatencyCurve:
    points = tuple((int(size), float(ms)) for size, ms in json.loads(path.read_text("utf-8"))["points"])
    if not points or list(points) != sorted(points) or points[0][0] < 1:
        raise ValueError(f"{path} holds no curve")
    return LatencyCurve(points)
