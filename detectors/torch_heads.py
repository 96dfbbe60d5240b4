"""From what a network gives for a batch to boxes: thresholds on the device, so that only candidates travel; the rest in numpy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from detectors.boxes import Found, Letterbox, Thresholds, suppress


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Boxes of a batch before suppression, on the device, image after image.

    `rows`: int64 (k,), the image of each; `xyxy`: float32 (k, 4) in canvas pixels; `scores`: float32 (k,); `class_ids`: int64 (k,).
    """

    rows: Any
    xyxy: Any
    scores: Any
    class_ids: Any


class Head(Protocol):
    """Reads what one kind of network gives."""

    def read(self, raw: Any, confidences: Any, canvas: tuple[int, int]) -> Candidates:
        """Candidates of the first `len(confidences)` images of a batch: scores above each image's own of `confidences`, float32 (n,)."""


class DenseHead:
    """The decoded output of an exported YOLOv8-style model, (n, 4 + classes, anchors): see `detectors.boxes.read_yolo`."""

    def read(self, raw: Any, confidences: Any, canvas: tuple[int, int]) -> Candidates:  # noqa: ARG002 - the protocol's names
        """Candidates of a batch."""
        output = raw[: len(confidences)].float()
        rows, anchors = torch.nonzero(output[:, 4:].amax(1) > confidences[:, None], as_tuple=True)
        kept = output[rows, :, anchors]
        scores, class_ids = kept[:, 4:].max(1)
        half = kept[:, 2:4] / 2
        return Candidates(rows, torch.cat((kept[:, :2] - half, kept[:, :2] + half), 1), scores, class_ids)


class DistributionHead:
    """The undecoded output of a YOLOv8-style head: (boxes, scores), (n, 4 * bins, anchors) and (n, classes, anchors) in logits.

    Only what passes the threshold is decoded, and in float32 whatever the network computed in: at 640 px a coordinate in f16 has steps of
    half a pixel, in bf16 of four. A side's distance from the anchor, in cells, is the mean of its distribution over 0, 1, ... bins - 1.
    Source of the formula: Li et al., Generalized Focal Loss, 2020, equation 6; anchors are the centres of cells, level after level.
    """

    def __init__(self, strides: Sequence[int], bins: int) -> None:
        self._strides = tuple(strides)
        self._bins = bins
        self._grids: dict[tuple[Any, tuple[int, int]], tuple[Any, Any]] = {}

    def read(self, raw: Any, confidences: Any, canvas: tuple[int, int]) -> Candidates:
        """Candidates of a batch."""
        boxes, logits = (part[: len(confidences)] for part in raw)
        rows, anchors = torch.nonzero(logits.amax(1).float().sigmoid() > confidences[:, None], as_tuple=True)
        scores, class_ids = logits[rows, :, anchors].float().sigmoid().max(1)
        distances = boxes[rows, :, anchors].float().view(-1, 4, self._bins)
        if self._bins > 1:
            steps = torch.arange(self._bins, dtype=torch.float32, device=distances.device)
            distances = distances.softmax(2) @ steps
        distances = distances.view(-1, 4)
        points, strides = self._grid(logits.device, canvas)
        points = points[anchors]
        xyxy = torch.cat((points - distances[:, :2], points + distances[:, 2:]), 1) * strides[anchors, None]
        return Candidates(rows, xyxy, scores, class_ids)

    def _grid(self, device: Any, canvas: tuple[int, int]) -> tuple[Any, Any]:
        """Centres (anchors, 2) in cells, x before y, and pixels a cell, (anchors,)."""
        known = self._grids.get((device, canvas))
        if known is None:
            sizes = [(canvas[1] // stride, canvas[0] // stride) for stride in self._strides]
            centres = [np.indices(size, np.float32)[::-1].reshape(2, -1).T + np.float32(0.5) for size in sizes]
            cells = [height * width for height, width in sizes]
            strides = np.repeat(np.array(self._strides, np.float32), cells)
            known = tuple(torch.from_numpy(array).to(device) for array in (np.concatenate(centres), strides))
            if device.type == "cuda":
                # Other streams will read it, and wait for nothing.
                torch.cuda.current_stream(device).synchronize()
            self._grids[device, canvas] = known
        return known


def land(candidates: Candidates, thresholds: Sequence[Thresholds], letterboxes: Sequence[Letterbox]) -> list[Found]:
    """The boxes of each image, in its own pixels, after what is asked for of classes, overlap and number. Waits for the device."""
    columns = (candidates.rows[:, None], candidates.xyxy, candidates.scores[:, None], candidates.class_ids[:, None])
    table = torch.cat([column.float() for column in columns], 1).cpu().numpy()
    ends = np.searchsorted(table[:, 0], np.arange(len(thresholds) + 1))
    found = []
    for row, (wanted, letterbox) in enumerate(zip(thresholds, letterboxes, strict=True)):
        part = table[ends[row] : ends[row + 1]]
        class_ids = part[:, 6].astype(np.int32)
        boxes = Found(part[:, 1:5].astype(np.float32), part[:, 5].astype(np.float32), class_ids)
        if wanted.classes is not None:
            boxes = boxes.take(np.flatnonzero(np.isin(class_ids, wanted.classes)))
        boxes = boxes.take(suppress(boxes, wanted.iou, wanted.limit))
        found.append(Found(letterbox.restore(boxes.xyxy), boxes.scores, boxes.class_ids))
    return found
