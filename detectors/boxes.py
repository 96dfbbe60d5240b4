"""Geometry between an image and a model's canvas, and from raw YOLO output to boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.base import Boxes
from detectors.spec import ModelSpec
from schemas.records import DetectParameters

PADDING_GREY = 114
# A bound on the work of suppression: the best so many candidates of an image are looked at (Ultralytics' own bound).
MAX_CANDIDATES = 30_000
_BLOCK = 96


def _hold(side: int, target: int, stride: int) -> int:
    """The shortest side of a canvas that holds `side`: whole strides short of `target`, and two of them at least if it has them."""
    held = side + (target - side) % stride
    return held + stride if held <= stride < target else held


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where an image of one size lies on a model's canvas: scaled by one factor, centred, the rest padded grey.

    All sizes are (width, height) in pixels. Formulas: `LetterBox` and `scale_boxes` of Ultralytics 8.4, so that a model sees
    what it was trained on: the resized sides are rounded (each at least 1), and the odd pixel of padding goes right or below.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    canvas: tuple[int, int]

    @classmethod
    def fit(cls, source: tuple[int, int], target: tuple[int, int], stride: int | None = None) -> Self:
        """Fit `source` into `target`; with a `stride` the canvas shrinks to the multiples of it that just hold the image.

        To no less than two of them: on a canvas one stride wide OpenVINO finds things in bf16 that are not there.
        """
        gain = min(target[0] / source[0], target[1] / source[1])
        width, height = (max(round(side * gain), 1) for side in source)
        if stride is None:
            return cls(source, (width, height), target)
        canvas = (_hold(width, target[0], stride), _hold(height, target[1], stride))
        return cls(source, (width, height), canvas)

    @property
    def offset(self) -> tuple[int, int]:
        """Padding at the left and at the top."""
        left, top = (
            round((canvas - resized) / 2 - 0.1) for canvas, resized in zip(self.canvas, self.resized, strict=True)
        )
        return left, top

    def apply(self, pixels: NDArray[np.uint8], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Place `pixels`, uint8 (height, width, 3), on a canvas, `out` or a new one; bilinear. They may show the source reduced.

        `out`: (canvas height, canvas width, 3), whatever it holds. Without it, writeable pixels that fill the canvas as they are, are that
        canvas, not a copy: libraries take no read-only ones. Raises ValueError for pixels of another kind.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(f"pixels are {pixels.dtype} of shape {pixels.shape}; expected uint8, (height, width, 3)")
        shape = (self.canvas[1], self.canvas[0], 3)
        if out is None and pixels.shape == shape and self.resized == self.canvas and pixels.flags.carray:
            return pixels
        canvas = np.empty(shape, np.uint8) if out is None else out
        (left, top), (width, height) = self.offset, self.resized
        for border in (canvas[:top], canvas[top + height :], canvas[:, :left], canvas[:, left + width :]):
            border.fill(PADDING_GREY)
        inside = canvas[top : top + height, left : left + width]
        if pixels.shape == inside.shape:
            inside[...] = pixels
        else:
            # Straight to its place: OpenCV writes into the view, whose rows are not contiguous.
            cv2.resize(pixels, (width, height), dst=inside, interpolation=cv2.INTER_LINEAR)
        return canvas

    def place(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (m, 4) of the image, as they lie on the canvas."""
        gain, offset = self._gain_and_offset()
        placed: NDArray[np.float32] = xyxy * gain + offset
        return placed

    def restore(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (m, 4) of the canvas, in pixels of the image and clipped to it; the inverse of `place`."""
        gain, offset = self._gain_and_offset()
        limits = np.array(self.source * 2, np.float32)
        restored: NDArray[np.float32] = np.clip((xyxy - offset) / gain, np.float32(0), limits)
        return restored

    def _gain_and_offset(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        gain = (self.resized[0] / self.source[0], self.resized[1] / self.source[1])
        return np.array(gain * 2, np.float32), np.array(self.offset * 2, np.float32)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What is kept of one image: scores above `confidence`, no two boxes of a class overlapping more than `iou`, the best `limit`."""

    confidence: float
    iou: float
    limit: int
    classes: tuple[int, ...] | None = None

    @classmethod
    def of(cls, wanted: DetectParameters, spec: ModelSpec) -> Self:
        """What a request asks for, and the model's defaults where it does not say."""
        advice = spec.advise()
        return cls(
            confidence=advice.confidence if wanted.confidence is None else wanted.confidence,
            iou=advice.iou if wanted.iou is None else wanted.iou,
            limit=spec.max_detections if wanted.max_detections is None else wanted.max_detections,
            classes=wanted.classes,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Boxes of one image, best first. `xyxy`: float32 (m, 4); `scores`: float32 (m,); `class_ids`: int32 (m,)."""

    xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]

    def take(self, rows: NDArray[np.intp]) -> "Found":
        """These rows, in this order."""
        return Found(self.xyxy[rows], self.scores[rows], self.class_ids[rows])


_NOTHING = Found(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))


def read_yolo(prediction: NDArray[np.float32], thresholds: Thresholds, letterbox: Letterbox) -> Found:
    """Boxes in the image's own pixels from one image's raw output of a YOLOv8-style head.

    `prediction`: float32 (4 + classes, anchors): rows centre x, centre y, width, height in canvas pixels, then a score in 0..1
    for each class; an anchor speaks for its best class only.
    """
    rows = np.flatnonzero(prediction[4:].max(axis=0) > thresholds.confidence)
    if not len(rows):
        return _NOTHING
    kept = np.ascontiguousarray(prediction[:, rows].T)
    class_ids = kept[:, 4:].argmax(axis=1).astype(np.int32)
    half = kept[:, 2:4] / 2
    xyxy: NDArray[np.float32] = np.concatenate((kept[:, :2] - half, kept[:, :2] + half), axis=1)
    found = Found(xyxy, kept[:, 4:].max(axis=1), class_ids)
    if thresholds.classes is not None:
        found = found.take(np.flatnonzero(np.isin(class_ids, thresholds.classes)))
    found = found.take(suppress(found, thresholds.iou, thresholds.limit))
    return Found(letterbox.restore(found.xyxy), found.scores, found.class_ids)


def suppress(found: Found, iou: float, limit: int) -> NDArray[np.intp]:
    """Non-maximum suppression within each class: indices of the boxes that stay, best score first, at most `limit`.

    Greedy: the best box stays, and every box of its class whose IoU with it is above `iou` goes; then the next best.
    """
    order = np.argsort(-found.scores, kind="stable")[:MAX_CANDIDATES]
    ranked, kept = found.take(order), np.empty(0, np.intp)
    # Block by block, best first, so that thousands of candidates cost a few large steps and not thousands of small ones.
    for start in range(0, len(order), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(order)))
        if len(kept):
            block = block[~_overlap(ranked, kept, block, iou).any(axis=0)]
        overlaps, stays = _overlap(ranked, block, block, iou), np.ones(len(block), np.bool_)
        for row in range(len(block) - 1):
            if stays[row]:
                stays[row + 1 :] &= ~overlaps[row, row + 1 :]
        kept = np.concatenate((kept, block[stays]))
        if len(kept) >= limit:
            break
    return order[kept[:limit]]


def _overlap(found: Found, left: NDArray[np.intp], right: NDArray[np.intp], iou: float) -> NDArray[np.bool_]:
    """(len(left), len(right)): whether two boxes are of one class and their IoU is above `iou`."""
    one, two = found.xyxy[left][:, np.newaxis], found.xyxy[right][np.newaxis]
    width = np.minimum(one[..., 2], two[..., 2]) - np.maximum(one[..., 0], two[..., 0])
    height = np.minimum(one[..., 3], two[..., 3]) - np.maximum(one[..., 1], two[..., 1])
    shared = np.maximum(width, np.float32(0)) * np.maximum(height, np.float32(0))
    areas = ((box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (one, two))
    # shared / union > iou, without dividing by the union of two empty boxes
    overlaps: NDArray[np.bool_] = shared > np.float32(iou) * (sum(areas) - shared)
    overlaps &= found.class_ids[left][:, np.newaxis] == found.class_ids[right]
    return overlaps


def join(parts: Sequence[Found]) -> Boxes:
    """One image after another, as the boxes of a batch."""
    counts = [len(part.scores) for part in parts]
    return Boxes(
        np.cumsum([0, *counts], dtype=np.int32),
        np.concatenate([np.empty((0, 4), np.float32), *(part.xyxy for part in parts)]),
        np.concatenate([np.empty(0, np.float32), *(part.scores for part in parts)]),
        np.concatenate([np.empty(0, np.int32), *(part.class_ids for part in parts)]),
    )
