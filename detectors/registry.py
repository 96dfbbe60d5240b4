"""From a description of a model to a detector that is loaded and warm."""

import importlib
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from detectors.base import Detector
from detectors.choice import choose_backend
from detectors.metrics import MeteredDetector
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError

STAND_INS = ("fake", "noop")
"""Names that stand for no file: what runs without a model, for tests and benchmarks."""
# They build for minutes, and keep what they built.
_BUILDERS = ("tensorrt",)


def open_detector(spec: ModelSpec, cache_dir: Path | None = None) -> Detector:
    """Load and warm the model of `spec` on the backend and devices that it asks for; `auto` chooses, and says what and why.

    What is measured to choose is kept in `cache_dir`, so that the next start need not. Raises ConfigurationError if there is no such
    backend, file, digest, device or extra; nothing is taken on before it returns.
    """
    if spec.path in STAND_INS:
        return MeteredDetector(importlib.import_module("detectors.fake").load(spec))
    return MeteredDetector(_open_devices(spec, cache_dir))


def _open_devices(spec: ModelSpec, cache_dir: Path | None) -> Detector:
    devices = [name.strip() for name in spec.device.split(",")]
    if not all(devices):
        raise ConfigurationError(f"model.device {spec.device!r} has an empty name; write devices as cuda:0,cuda:1")
    if len(devices) == 1:
        return _open_one(spec, cache_dir)
    with ExitStack() as opened:
        detectors: list[Detector] = []
        for device in devices:
            # What the first device measured is what all run: results must not depend on where an image came to.
            precision = detectors[0].model.precision if detectors else spec.precision
            detectors.append(_open_one(replace(spec, device=device, precision=precision), cache_dir))
            opened.callback(detectors[-1].close)
        fleet: Detector = importlib.import_module("detectors.fleet").join_devices(detectors)
        opened.pop_all()
    return fleet


def _open_one(spec: ModelSpec, cache_dir: Path | None) -> Detector:
    name = choose_backend(spec)
    # Imported only when chosen: each backend brings its inference library with it.
    backend: Any = importlib.import_module(f"detectors.{name}")
    if name in _BUILDERS:
        detector: Detector = backend.load(spec, cache_dir)
    elif spec.precision == "auto" and hasattr(backend, "precisions"):
        detector = importlib.import_module("detectors.precision").open_fastest(spec, backend, cache_dir)
    else:
        detector = backend.load(spec)
    return detector
