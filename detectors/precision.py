"""`precision = auto`: the fastest precision that finds what f32 finds, by measurement on this machine, remembered for the next start."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.base import Boxes, Detector, Image
from detectors.parity import Asked, Tolerance, compare
from detectors.spec import ModelSpec, read_model
from schemas.errors import ConfigurationError
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
    """One precision on the probes: images a second, the share of boxes that the first one has too, and whether that is enough."""

    precision: str
    images_per_s: float
    agreement: float
    holds: bool

    def __str__(self) -> str:
        return f"{self.precision} {self.images_per_s:.0f} images/s, {self.agreement:.1%} of boxes alike"


def open_fastest(
    spec: ModelSpec, backend: Backend, cache_dir: Path | None = None, now: Callable[[], float] = time.perf_counter
) -> Detector:
    """Load `spec` in the precision that an earlier start chose for it here, else in the one that is measured fastest now.

    The choice is kept in `cache_dir`; a file there that is not readable is as none. Raises what loading the first precision raises.
    """
    kept = cache_dir and cache_dir / f"precision-{_fingerprint(spec, backend.place(spec))}.json"
    if kept and (known := _recall(kept)):
        try:
            detector = backend.load(replace(spec, precision=known))
        except ConfigurationError as error:
            log.warning("precision auto: %s was chosen at an earlier start, but is no more: %s", known, error)
        else:
            log.info("precision auto: %s, as measured at an earlier start", known)
            return detector
    detectors = _load_all(spec, backend)
    if len(detectors) == 1:
        return next(iter(detectors.values()))
    trials = _try(detectors, now)
    chosen = choose(trials)
    for name, detector in detectors.items():
        if name != chosen:
            detector.close()
    log.info("precision auto: %s, the fastest that finds what f32 finds: %s", chosen, "; ".join(map(str, trials)))
    if kept:
        _keep(kept, chosen, trials)
    return detectors[chosen]


def choose(trials: Sequence[Trial]) -> str:
    """The fastest of those that hold; the first, unless another is clearly faster."""
    holding = [trial for trial in trials if trial.holds]
    best = max(holding, key=lambda trial: trial.images_per_s, default=trials[0])
    return best.precision if best.images_per_s >= _WORTHWHILE * trials[0].images_per_s else trials[0].precision


def _load_all(spec: ModelSpec, backend: Backend) -> dict[str, Detector]:
    """A detector of each precision on offer; only the first one has to load."""
    first, *others = backend.precisions(spec)
    detectors = {first: backend.load(replace(spec, precision=first))}
    for name in others:
        try:
            detectors[name] = backend.load(replace(spec, precision=name))
        except ConfigurationError as error:
            log.warning("precision auto: %s is left out: %s", name, error)
    return detectors


def _try(detectors: dict[str, Detector], now: Callable[[], float]) -> list[Trial]:
    """Rounds in turn, the best of each: another process's burst spoils one round and not one precision."""
    probes = [Image(draw(seed)) for seed in range(_PROBES)]
    wanted = DetectParameters(confidence=_ASKED.confidence, iou=_ASKED.iou, max_detections=_ASKED.limit)
    found = {name: detector.detect(probes, [wanted] * _PROBES) for name, detector in detectors.items()}
    rates = dict.fromkeys(detectors, 0.0)
    for _ in range(_ROUNDS):
        for name, detector in detectors.items():
            rates[name] = max(rates[name], _rate(detector, probes, now))
    reference = found[next(iter(found))]
    return [_judge(name, rates[name], reference, boxes) for name, boxes in found.items()]


def _judge(name: str, images_per_s: float, reference: Boxes, boxes: Boxes) -> Trial:
    compared = compare(name, [str(seed) for seed in range(_PROBES)], (reference, boxes), _ASKED, _TOLERANCE)
    share = 1 - len(compared.defects) / max(compared.compared, 1)
    return Trial(name, images_per_s, share, boxes is reference or compared.holds)


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
    said = (read_model(spec).digest, spec.digest is None, place, spec.image_size)
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
