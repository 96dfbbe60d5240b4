"""Average precision of a few pictures, where pycocotools is not installed; a test holds it against pycocotools. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.boxes import Found

_RECALLS = np.linspace(0, 1, 101)
_MOST_DETECTIONS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """What is in a picture. `xyxy`: float (m, 4); `class_ids`: int (m,); `crowds`: bool (m,), objects that count neither way."""

    xyxy: NDArray[np.float64]
    class_ids: NDArray[np.intp]
    crowds: NDArray[np.bool_]


def average_precision(
    truth: Sequence[Labelled], found: Sequence[Found], class_id: int, iou: float = 0.5
) -> float | None:
    """COCO's average precision of a class: the mean of precision at recalls 0, 0.01 ... 1; None where no object is of the class.

    `found[i]` belongs to `truth[i]`. Detections, best score first and 100 a picture, are matched to the free object that they overlap most,
    at least `iou`; those matched to a crowd are left out.
    """
    parts = [_match(picture, boxes, class_id, iou) for picture, boxes in zip(truth, found, strict=True)]
    objects = sum(int(((picture.class_ids == class_id) & ~picture.crowds).sum()) for picture in truth)
    if not objects:
        return None
    scores, correct = (np.concatenate(column) for column in zip(*parts, strict=True))
    hits = np.cumsum(correct[np.argsort(-scores, kind="stable")])
    recall, precision = hits / objects, hits / np.arange(1, len(hits) + 1)
    # Precision at a recall is the best that is reached there or beyond.
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(best[np.searchsorted(recall, _RECALLS, side="left")].mean())


def _match(truth: Labelled, found: Found, class_id: int, least: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scores of a picture's detections that count, and whether each is right."""
    rows = np.flatnonzero(found.class_ids == class_id)
    rows = rows[np.argsort(-found.scores[rows], kind="stable")][:_MOST_DETECTIONS]
    mine = truth.class_ids == class_id
    objects, crowds = truth.xyxy[mine & ~truth.crowds], truth.xyxy[mine & truth.crowds]
    free = np.ones(len(objects), np.bool_)
    counted, correct = np.ones(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    for number, row in enumerate(rows):
        box = found.xyxy[row].astype(np.float64)
        overlaps = np.where(free, _overlap(box, objects), 0)
        if len(objects) and overlaps.max() >= least:
            # Of equal ones the last, as in pycocotools.
            free[len(overlaps) - 1 - int(overlaps[::-1].argmax())] = False
            correct[number] = True
        else:
            counted[number] = not (_overlap(box, crowds, crowd=True) >= least).any()
    return found.scores[rows][counted], correct[counted]


def _overlap(box: NDArray[np.float64], others: NDArray[np.float64], *, crowd: bool = False) -> NDArray[np.float64]:
    """IoU with each; with a crowd, the share of the box that is in it."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    area = np.prod(box[2:] - box[:2])
    union = area if crowd else area + np.prod(others[:, 2:] - others[:, :2], axis=1) - shared
    share: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return share
