"""Stand-ins for a model: one whose boxes follow from the pixels, for tests, and one that finds nothing, for benchmarks."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from detectors.base import Boxes, Image, ModelInfo
from detectors.boxes import Found, Thresholds, join
from detectors.spec import ModelSpec
from schemas.records import DetectParameters

LABELS = ("person", "bicycle", "car", "dog")
# The RGB of the top left pixel that makes the fake detector raise, as a model may on one odd image.
POISON = (255, 0, 255)


def load(spec: ModelSpec) -> "FakeDetector | NoopDetector":
    """The stand-in that `spec.path` names, `fake` or `noop`."""
    return FakeDetector(spec) if spec.path == "fake" else NoopDetector(spec)


class PoisonedError(Exception):
    """What the fake detector raises for a poisoned image; a model's own errors are as foreign."""


class FakeDetector:
    """Finds one to three boxes in every image, a function of its pixels alone; raises on a poisoned one.

    `pause`: called with the batch's size before each batch, to make inference take as long as a test wants.
    """

    def __init__(self, spec: ModelSpec, pause: Callable[[int], None] = lambda _: None) -> None:
        self._spec = spec
        self._pause = pause
        self._model = _describe(spec)

    @property
    def model(self) -> ModelInfo:
        """A model that does not exist."""
        return self._model

    @property
    def concurrency(self) -> int:
        """Two, as of a real backend."""
        return 2

    @property
    def max_batch(self) -> int:
        """As of a real backend."""
        return 64

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes that follow from each image's pixels. Raises PoisonedError if any image is poisoned."""
        self._pause(len(images))
        if any(tuple(image.pixels[0, 0]) == POISON for image in images):
            raise PoisonedError("an image of this batch is poisoned")
        return join([self._find(image, wanted) for image, wanted in zip(images, parameters, strict=True)])

    def close(self) -> None:
        """Nothing to give back."""

    def _find(self, image: Image, wanted: DetectParameters) -> Found:
        thresholds = Thresholds.of(wanted, self._spec)
        total = int(image.pixels.sum(dtype=np.uint64))
        count = 1 + total % 3
        scores = np.array([0.9 - 0.25 * rank for rank in range(count)], np.float32)
        class_ids = np.array([(total + rank) % len(LABELS) for rank in range(count)], np.int32)
        inset = np.arange(count, dtype=np.float32)[:, np.newaxis] / 8
        size = np.array([image.width, image.height], np.float32)
        found = Found(np.concatenate((size * inset, size * (1 - inset)), axis=1), scores, class_ids)
        rows = scores > thresholds.confidence
        if thresholds.classes is not None:
            rows &= np.isin(class_ids, thresholds.classes)
        return found.take(np.flatnonzero(rows)[: thresholds.limit])


class NoopDetector:
    """Finds nothing, in no time, whatever the batch: what is left is the cost of everything else."""

    def __init__(self, spec: ModelSpec) -> None:
        self._model = _describe(spec)
        self._nothing = join([])

    @property
    def model(self) -> ModelInfo:
        """A model that does not exist."""
        return self._model

    @property
    def concurrency(self) -> int:
        """Two, as of a real backend."""
        return 2

    @property
    def max_batch(self) -> int:
        """More than any run holds."""
        return 65_536

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:  # noqa: ARG002 - the protocol's names
        """No boxes for any image."""
        nothing = self._nothing
        return Boxes(np.zeros(len(images) + 1, np.int32), nothing.xyxy, nothing.scores, nothing.class_ids)

    def close(self) -> None:
        """Nothing to give back."""


def _describe(spec: ModelSpec) -> ModelInfo:
    digest = hashlib.sha256(spec.path.encode()).hexdigest()
    return ModelInfo(
        spec.model_name,
        spec.version,
        f"sha256:{digest}",
        LABELS,
        backend=spec.path,
        precision="f32",
        device="none",
        advice=spec.advise(),
    )
