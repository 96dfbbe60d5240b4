"""What can be wrong with the labels of one picture. Pure: no file is opened."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from detectors.training.dataset import Corners, Label, Picture
from detectors.training.findings import CheckPolicy, Kind
from detectors.training.polygons import around

# Annotations are rounded in many ways: so far beyond the frame a box may reach.
_SLACK_PX = 1.0
# Two boxes are one object labelled twice from this overlap on.
_SAME_IOU = 0.95
# A box that overlaps less with what is seen of its outline is of something else.
_LEAST_OUTLINE_IOU = 0.5


def check_labels(picture: Picture, names: Sequence[str], policy: CheckPolicy) -> Iterator[tuple[Kind, str]]:
    """Each thing that is wrong or doubtful, with a sentence about it."""
    sound: list[Label] = []
    for label in picture.labels:
        left, top, right, bottom = label.box
        who = f"{names[label.class_id]} at {left:.1f} {top:.1f} {right:.1f} {bottom:.1f}"
        if not all(map(math.isfinite, label.box)) or right <= left or bottom <= top:
            yield Kind.EMPTY_BOX, f"{who}: the box is empty"
            continue
        beyond = max(-left, -top, right - picture.width, bottom - picture.height)
        if beyond > _SLACK_PX:
            yield Kind.BOX_BEYOND_FRAME, f"{who}: reaches {beyond:.1f} px beyond {picture.width}x{picture.height}"
        if min(right - left, bottom - top) < policy.tiny_px:
            yield Kind.TINY_BOX, f"{who}: {right - left:.1f} x {bottom - top:.1f} px"
        if label.outline and not _fits_outline(label, picture):
            yield Kind.OUTLINE_ELSEWHERE, f"{who}: the outline is elsewhere"
        if not label.crowd:
            sound.append(label)
    for one, other in _find_doubles(sound):
        of_classes = "twice" if one.class_id == other.class_id else f"also as {names[other.class_id]}"
        left, top, right, bottom = one.box
        yield (
            Kind.DOUBLE_BOX,
            f"{names[one.class_id]} at {left:.1f} {top:.1f} {right:.1f} {bottom:.1f}: is there {of_classes}",
        )


def _find_doubles(labels: Sequence[Label]) -> Iterator[tuple[Label, Label]]:
    if len(labels) < 2:
        return
    boxes = np.array([label.box for label in labels])
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    overlap = shared / (areas[:, None] + areas - shared)
    for row, column in zip(*np.nonzero(np.triu(overlap >= _SAME_IOU, 1)), strict=True):
        yield labels[row], labels[column]


def _fits_outline(label: Label, picture: Picture) -> bool:
    """Whether the box is about the part of the outline that is in the frame: it may be of the whole object, or of what is seen."""
    whole = around(label.outline)
    frame = (0.0, 0.0, float(picture.width), float(picture.height))
    return max(_iou(label.box, whole), _iou(label.box, _intersect(whole, frame))) >= _LEAST_OUTLINE_IOU


def _intersect(one: Corners, other: Corners) -> Corners:
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def _area(box: Corners) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _iou(one: Corners, other: Corners) -> float:
    shared = _area(_intersect(one, other))
    return shared / total if (total := _area(one) + _area(other) - shared) else 0.0
