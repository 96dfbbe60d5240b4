"""`precision = auto`: the fastest precision that finds what f32 finds, by measurement on this machine, remembered for the next start."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.base import Boxes, Detector, Image
from detectors.cores import usable_cores
from detectors.parity import Asked, Tolerance, compare
from detectors.spec import ModelSpec, read_model
from schemas.records import DetectParameters

log = logging.getLogger(__name__)

# Far finer than what a wrong conversion does, and coarser than what rounding does to boxes that a model is not sure of.
_TOLERANCE = Tolerance(iou=0.8, score=0.1, share=0.1)
# Everything that it suspects: a drawn scene may hold nothing that the model knows well, and of few boxes no share can be told.
_ASKED = Asked(confidence=0.001, iou=0.7, limit=100)
# What is less than this much faster is not worth another rounding.
_WORTHWHILE = 1.05
_PROBES, _ROUNDS, _ROUND_S = 6, 3, 0.15
_SIZE = (480, 640)


class Backend(Protocol):
    """A backend module that has precisions to choose from."""

    def load(self, spec: ModelSpec) -> Detector:
        """A detector in `spec.precision`."""

    def precisions(self, spec: ModelSpec) -> tuple[str, ...]:
        """What there is to choose from, the one that the others are held against first."""

    def place(self, spec: ModelSpec) -> str:
        """Library, version, device, and what else decides on the offer: all that a measurement holds for."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One precision on the probes: images a second, and the share of so many boxes that the first one has too.

    `holds`: whether that is enough, and they are enough for a share to mean something.
    """

    precision: str
    images_per_s: float
    agreement: float
    boxes: int
    holds: bool

    def __str__(self) -> str:
        verdict = "" if self.holds else ", which is not enough"
        return f"{self.precision} {self.images_per_s:.0f} images/s, {self.agreement:.1%} of {self.boxes} boxes alike{verdict}"


def open_fastest(
    spec: ModelSpec, backend: Backend, cache_dir: Path | None = None, now: Callable[[], float] = time.perf_counter
) -> Detector:
    """Load `spec` in the precision that an earlier start chose for it here, else in the one that is measured fastest now.

    The choice is kept in `cache_dir`; a file there that is not readable is as none. Raises what the first precision raises; another one
    that fails is left out, and the log says so.
    """
    kept = cache_dir and cache_dir / f"precision-{_fingerprint(spec, backend.place(spec))}.json"
    offered = backend.precisions(spec)
    # A sibling may have changed since it was measured: only what is on offer now is as good as then.
    if kept and (known := _recall(kept)) in offered and (detector := _reopen(replace(spec, precision=known), backend)):
        return detector
    detectors: dict[str, Detector] = {}
    try:
        for name in offered:
            with _leaving_out(name, detectors):
                detectors[name] = backend.load(replace(spec, precision=name))
        if len(detectors) == 1:
            return detectors.popitem()[1]
        trials = _try(detectors, now)
        chosen = choose(trials)
        log.info("precision auto: %s, the fastest that finds what f32 finds: %s", chosen, "; ".join(map(str, trials)))
        if kept:
            _keep(kept, chosen, trials)
        return detectors.pop(chosen)
    finally:
        for loser in detectors.values():
            loser.close()


def choose(trials: Sequence[Trial]) -> str:
    """The fastest of those that hold; the first, unless another is clearly faster."""
    holding = [trial for trial in trials if trial.holds]
    best = max(holding, key=lambda trial: trial.images_per_s, default=trials[0])
    return best.precision if best.images_per_s >= _WORTHWHILE * trials[0].images_per_s else trials[0].precision


def _reopen(spec: ModelSpec, backend: Backend) -> Detector | None:
    try:
        detector = backend.load(spec)
    except Exception as error:  # noqa: BLE001 - whatever a library raises, another precision may do
        log.warning("precision auto: %s was chosen at an earlier start, but fails now: %s", spec.precision, error)
        return None
    log.info("precision auto: %s, as measured at an earlier start", spec.precision)
    return detector


@contextmanager
def _leaving_out(name: str, detectors: dict[str, Detector]) -> Iterator[None]:
    """Drops a precision from `detectors` that fails, whatever with; but the first one, which is no luxury, has to work."""
    try:
        yield
    except Exception as error:
        if name == next(iter(detectors), name):
            raise
        log.warning("precision auto: %s is left out: %s", name, error)
        if name in detectors:
            detectors.pop(name).close()


def _try(detectors: dict[str, Detector], now: Callable[[], float]) -> list[Trial]:
    """Rounds in turn, the best of each: another process's burst spoils one round and not one precision. What fails is dropped."""
    probes = [Image(draw(seed)) for seed in range(_PROBES)]
    wanted = DetectParameters(confidence=_ASKED.confidence, iou=_ASKED.iou, max_detections=_ASKED.limit)
    found: dict[str, Boxes] = {}
    rates = dict.fromkeys(detectors, 0.0)
    for name, detector in list(detectors.items()):
        with _leaving_out(name, detectors):
            found[name] = detector.detect(probes, [wanted] * _PROBES)
    for _ in range(_ROUNDS):
        for name, detector in list(detectors.items()):
            with _leaving_out(name, detectors):
                rates[name] = max(rates[name], _rate(detector, probes, now))
    reference = found[next(iter(found))]
    return [_judge(name, rates[name], reference, found[name]) for name in detectors]


def _judge(name: str, images_per_s: float, reference: Boxes, boxes: Boxes) -> Trial:
    compared = compare(name, [str(seed) for seed in range(_PROBES)], (reference, boxes), _ASKED, _TOLERANCE)
    share = 1 - len(compared.defects) / max(compared.compared, 1)
    return Trial(name, images_per_s, share, compared.compared, boxes is reference or compared.holds)


def _rate(detector: Detector, probes: list[Image], now: Callable[[], float]) -> float:
    """Images a second, as the worker drives it: so many calls at once as it asks for."""
    began, parameters = now(), [DetectParameters()] * len(probes)

    def work(_: int) -> tuple[int, float]:
        done = 0
        while not done or now() - began < _ROUND_S:
            detector.detect(probes, parameters)
            done += len(probes)
        return done, now()

    with ThreadPoolExecutor(detector.concurrency) as pool:
        lanes = list(pool.map(work, range(detector.concurrency)))
    return sum(done / max(ended - began, 1e-9) for done, ended in lanes)


def draw(seed: int) -> NDArray[np.uint8]:
    """A scene of shaded shapes on a gradient, uint8 (480, 640, 3): edges, textures and round things, always the same for a seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    scene: NDArray[np.uint8] = cv2.resize(coarse, _SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        x, y, size = (int(value) for value in rng.integers((20, 20, 20), (_SIZE[1] - 20, _SIZE[0] - 20, 130)))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        if rng.random() < 0.5:
            cv2.circle(scene, (x, y), size // 2, colour, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(scene, (x, y), (x + size, y + size // 2), colour, -1)
    noisy = scene.astype(np.int16) + rng.normal(0, 6, scene.shape).astype(np.int16)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _fingerprint(spec: ModelSpec, place: str) -> str:
    said = (read_model(spec).digest, spec.digest is None, place, usable_cores(), spec.image_size, spec.compiled)
    return hashlib.blake2b(repr(said).encode(), digest_size=12).hexdigest()


def _recall(path: Path) -> str | None:
    try:
        chosen = json.loads(path.read_text("utf-8"))["chosen"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return chosen if isinstance(chosen, str) else None


def _keep(path: Path, chosen: str, trials: Sequence[Trial]) -> None:
    said = {"chosen": chosen, "trials": [asdict(trial) for trial in trials]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(said), "utf-8")
        fresh.replace(path)
    except OSError as error:
        log.warning("the choice of a precision cannot be kept: %s", error)
