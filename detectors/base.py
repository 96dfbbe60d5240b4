"""What the pipeline asks of a detector, and nothing about how a backend does it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from detectors.spec import Advice
from schemas.records import DetectParameters


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A decoded picture in its oriented frame (EXIF orientation already applied).

    `pixels`: uint8, shape (height, width, 3), RGB, C-contiguous. `frame`: (width, height) of the oriented frame in pixels, where
    `pixels` show it reduced because no model needs more of it; boxes are always in the frame's pixels. `fetch_ms` and `decode_ms`
    say what getting it took. `sha256`: hex digest of the encoded bytes, "" where nobody computed it.
    """

    pixels: NDArray[np.uint8]
    fetch_ms: float = 0.0
    decode_ms: float = 0.0
    frame: tuple[int, int] | None = None
    sha256: str = ""

    @property
    def width(self) -> int:
        """Pixels across the oriented frame."""
        return self.frame[0] if self.frame else int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels down the oriented frame."""
        return self.frame[1] if self.frame else int(self.pixels.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Detections of a batch of n images with m boxes in all, as struct of arrays.

    Boxes of image i are rows `offsets[i]:offsets[i + 1]`, best score first.
    `offsets`: int32 (n + 1,); `xyxy`: float32 (m, 4), corners in pixels of each image's oriented frame, within it;
    `scores`: float32 (m,) in 0..1; `class_ids`: int32 (m,), indices into `ModelInfo.labels`.
    """

    offsets: NDArray[np.int32]
    xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def check(self, images: int, classes: int) -> None:
        """Raise ValueError where these cannot be the boxes of so many images by a model of so many classes."""
        if len(self) != images or self.offsets[0] != 0 or (np.diff(self.offsets) < 0).any():
            raise ValueError(f"boxes of {len(self)} images for {images}")
        if not int(self.offsets[-1]) == len(self.scores) == len(self.class_ids) == len(self.xyxy):
            raise ValueError("boxes, scores and classes differ in number")
        if not (np.isfinite(self.xyxy).all() and np.isfinite(self.scores).all()):
            raise ValueError("a box or a score is not a finite number")
        if len(self.class_ids) and not (self.class_ids.min() >= 0 and self.class_ids.max() < classes):
            raise ValueError(f"a class beyond the model's {classes}")

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The boxes of several batches, in order, as one."""
        ends = np.cumsum([0, *(int(part.offsets[-1]) for part in parts)])
        offsets = [
            np.zeros(1, np.int32),
            *(p.offsets[1:] + np.int32(start) for p, start in zip(parts, ends, strict=False)),
        ]
        return cls(
            np.concatenate(offsets).astype(np.int32, copy=False),
            np.concatenate([np.empty((0, 4), np.float32), *(p.xyxy for p in parts)]),
            np.concatenate([np.empty(0, np.float32), *(p.scores for p in parts)]),
            np.concatenate([np.empty(0, np.int32), *(p.class_ids for p in parts)]),
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model a detector runs and how; all but `canvas`, `origin` and `advice` travels in each result.

    `digest`: `sha256:` + hex of the model's bytes. `origin`: the same of the file that was asked for, where a quantised sibling runs in
    its place; "" where they are one. `canvas`: (width, height) in pixels of the largest input that images are scaled to;
    None where the detector has no such bound. `advice`: what holds for requests that do not say.
    """

    name: str
    version: str
    digest: str
    labels: tuple[str, ...]
    backend: str = ""
    precision: str = ""
    device: str = ""
    canvas: tuple[int, int] | None = None
    origin: str = ""
    advice: Advice = field(default_factory=Advice)


class Detector(Protocol):
    """Turns pixels into boxes.

    `detect` is called from up to `concurrency` threads at once, never on an event loop. `max_batch` bounds what one call gets.
    It may raise anything for a batch; the caller then halves the batch until the image at fault is alone.
    """

    @property
    def model(self) -> ModelInfo:
        """The model that runs; constant for the detector's life."""

    @property
    def concurrency(self) -> int:
        """How many `detect` calls at once make the device busiest."""

    @property
    def max_batch(self) -> int:
        """The most images that one call may be given."""

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes of each image, in order. `parameters[i]` belongs to `images[i]`; requests of one batch may differ."""

    def close(self) -> None:
        """Give back the device. Not called while `detect` runs."""
