"""From a description of a model to a detector that is loaded and warm."""

import importlib
from pathlib import Path

from detectors.base import Detector
from detectors.metrics import MeteredDetector
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError

# Imported only when asked for: each brings its inference library with it.
_BACKENDS = {".onnx": "detectors.openvino", ".pt": "detectors.ultralytics"}
_STAND_INS = {"fake": "detectors.fake", "noop": "detectors.fake"}


def open_detector(spec: ModelSpec) -> Detector:
    """Load and warm the model of `spec` on the backend that its file's suffix asks for.

    Raises ConfigurationError if there is no such backend, file, digest, device or extra; nothing is taken on before it returns.
    """
    module = _STAND_INS.get(spec.path) or _BACKENDS.get(Path(spec.path).suffix.lower())
    if module is None:
        known = ", ".join((*_BACKENDS, *_STAND_INS))
        raise ConfigurationError(f"no backend for the model {spec.path!r}; known are: {known}")
    detector: Detector = importlib.import_module(module).load(spec)
    return MeteredDetector(detector)
