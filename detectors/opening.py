"""From a version of the registry to a detector: its files fetched and checked, tried out, opened as the record says."""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from detectors.base import ModelInfo
from detectors.calm import calmly
from detectors.curve import Paced
from detectors.model_cache import ModelCache
from detectors.registry import STAND_INS
from detectors.rehearsal import rehearse
from detectors.spec import ModelSpec, read_model
from schemas.errors import ConfigurationError
from schemas.models import ModelVersion

# Where nobody measured: weights in the library's own layout beside the file's, and room for activations.
_TIMES, _BESIDE_BYTES = 4, 64 * 1024 * 1024


@dataclass(slots=True, eq=False)
class VersionOpener:
    """`detectors.hosting.Opener`. `base`: the section `model`, for all that a record leaves to the worker. `open_spec`: loads and warms.

    `learnt`: the folder of what is measured. `beside`: whether another model works meanwhile; then a version is rehearsed first
    (if `rehearsed`), and opened on one core. `stop` ends a rehearsal.
    """

    cache: ModelCache
    base: ModelSpec
    learnt: Path
    open_spec: Callable[[ModelSpec], Paced]
    largest_input: int
    rehearsed: bool = True
    beside: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def prepare(self, version: ModelVersion) -> int:
        """See `Opener`."""
        if version.backend in STAND_INS:
            return 0
        spec = self._spec(version)
        if version.digest and (found := read_model(spec).digest) != version.digest:
            raise ConfigurationError(f"its files have the digest {found}, and not {version.digest}")
        if self.beside and self.rehearsed:
            return rehearse(spec, self.learnt, self.stop)
        return _BESIDE_BYTES + _TIMES * sum(file.bytes for file in version.files)

    def open(self, version: ModelVersion) -> Paced:
        """See `Opener`."""
        with calmly() if self.beside else nullcontext():
            detector = self.open_spec(self._spec(version))
        if why := self._complaint(version, detector.model):
            detector.close()
            raise ConfigurationError(why)
        return detector

    def _complaint(self, version: ModelVersion, model: ModelInfo) -> str | None:
        if model.canvas and max(model.canvas) > self.largest_input:
            return f"its input of {model.canvas[0]}x{model.canvas[1]} is larger than models.largest_input"
        if version.labels and model.labels != version.labels:
            return f"its labels are not those that were added: {', '.join(model.labels)[:200]}"
        return None

    def _spec(self, version: ModelVersion) -> ModelSpec:
        stand_in = version.backend in STAND_INS
        return replace(
            self.base,
            path=version.backend if stand_in else str(self.cache.fetch(version)),
            name=version.name,
            version=version.version,
            digest=None,  # checked here, so that a quantised sibling that belongs to the version may run
            backend=self.base.backend if stand_in else version.backend or self.base.backend,
            precision=version.precision or self.base.precision,
            image_size=max(version.input_width, version.input_height) or self.base.image_size,
            confidence=self.base.confidence if version.confidence is None else version.confidence,
            iou=self.base.iou if version.iou is None else version.iou,
        )
