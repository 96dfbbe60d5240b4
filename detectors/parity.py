"""Whether two detectors find the same: boxes paired by overlap within a class, and what is beyond a stated tolerance. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectors.base import Boxes
from detectors.boxes import Found

# Below this two boxes of a class are not one object seen twice: half of either is elsewhere.
_PAIR_IOU = 0.5
# A share of fewer boxes than this says nothing.
_FEWEST_FOR_A_SHARE = 20
# Suppression looks at boxes before they are clipped to the frame, so its overlaps and those of what it leaves differ.
_CLIPPING_SLACK = 0.1


_Kind: TypeAlias = Literal["drifted", "missing", "extra"]
_Side: TypeAlias = tuple[_Kind, Found, Found, NDArray[np.intp], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far boxes may be from the reference's.

    `iou`: the least overlap of a pair; `score`: the most that its scores differ. `share`: the share of the boxes compared that may be
    beyond either, or be without a partner; 0 allows none, and more needs at least 20 boxes to be compared.
    """

    iou: float
    score: float
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Defect:
    """A box beyond the tolerance. `kind`: `drifted`, or `missing` (the reference alone has it), or `extra` (the other alone).

    `xyxy` and `score` are the reference's, but for `extra`; `iou` and `score_drift` are of the pair, 0 where there is none.
    """

    image: str
    kind: _Kind
    class_id: int
    xyxy: tuple[float, float, float, float]
    score: float
    iou: float = 0.0
    score_drift: float = 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a subject's boxes are to the reference's. `compared`: pairs and defects without a partner; `excused` are in neither.

    `worst_iou` and `worst_score_drift` are over pairs; 1 and 0 where there are none.
    """

    subject: str
    images: int
    compared: int
    excused: int
    worst_iou: float
    worst_score_drift: float
    defects: tuple[Defect, ...]
    tolerance: Tolerance

    @property
    def holds(self) -> bool:
        """Too few boxes to compare do not hold: that would be true of any two models."""
        enough = _FEWEST_FOR_A_SHARE if self.tolerance.share else 1
        return self.compared >= enough and len(self.defects) <= self.tolerance.share * self.compared


@dataclass(frozen=True, slots=True)
class Asked:
    """What both detectors were asked for: `DetectParameters`, none left open."""

    confidence: float
    iou: float
    limit: int


def compare(
    subject: str, images: Sequence[str], pair: tuple[Boxes, Boxes], asked: Asked, tolerance: Tolerance
) -> Comparison:
    """Hold the second of `pair` against the first, image by image, which `images` names.

    Boxes of a class are paired by greatest overlap first, at least 0.5, each once. Overlap is IoU of boxes grown by half a pixel on
    each side, so that boxes without an area compare too. A box without a partner is excused, and no defect, where rounding decides:

    - its score is within `tolerance.score` of what its partner needed: the confidence asked for or, on a side that reached the limit, the
      least score there;
    - or the other side has a box of its class that overlaps it nearly as much as suppression allows, or more, and scores no
      less but for `tolerance.score`;
    - or the other side has it as another class, with the same overlap and score within the tolerance: an anchor speaks for one class.
    """
    parts = [
        _compare_image(name, _of_image(pair[0], index), _of_image(pair[1], index), asked, tolerance)
        for index, name in enumerate(images)
    ]
    return Comparison(
        subject=subject,
        images=len(images),
        compared=sum(part.compared for part in parts),
        excused=sum(part.excused for part in parts),
        worst_iou=min((part.worst_iou for part in parts), default=1.0),
        worst_score_drift=max((part.worst_score_drift for part in parts), default=0.0),
        defects=tuple(defect for part in parts for defect in part.defects),
        tolerance=tolerance,
    )


def _of_image(boxes: Boxes, index: int) -> Found:
    rows = slice(int(boxes.offsets[index]), int(boxes.offsets[index + 1]))
    return Found(boxes.xyxy[rows], boxes.scores[rows], boxes.class_ids[rows])


def _compare_image(name: str, reference: Found, other: Found, asked: Asked, tolerance: Tolerance) -> Comparison:
    overlaps = _overlaps(reference.xyxy, other.xyxy)
    same_class = reference.class_ids[:, np.newaxis] == other.class_ids
    left, right = _pair_up(np.where(same_class, overlaps, 0))
    ious = overlaps[left, right]
    drifts = np.abs(reference.scores[left] - other.scores[right])
    defects = [
        _defect(name, "drifted", reference, int(row), (float(iou), float(drift)))
        for row, iou, drift in zip(left, ious, drifts, strict=True)
        if iou < tolerance.iou or drift > tolerance.score
    ]
    excused = 0
    sides: tuple[_Side, ...] = (
        ("missing", reference, other, left, overlaps),
        ("extra", other, reference, right, overlaps.T),
    )
    for kind, mine, theirs, paired, matrix in sides:
        alone = np.setdiff1d(np.arange(len(mine.scores)), paired)
        unexcused = [row for row in alone if not _excused(mine, int(row), theirs, matrix[row], (asked, tolerance))]
        excused += len(alone) - len(unexcused)
        defects += [_defect(name, kind, mine, int(row)) for row in unexcused]
    return Comparison(
        subject="",
        images=1,
        compared=len(left) + sum(defect.kind != "drifted" for defect in defects),
        excused=excused,
        worst_iou=float(ious.min(initial=1)),
        worst_score_drift=float(drifts.max(initial=0)),
        defects=tuple(defects),
        tolerance=tolerance,
    )


def _overlaps(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU of each box with each, (len(left), len(right)), of boxes grown by half a pixel on each side."""
    grown = np.array((-0.5, -0.5, 0.5, 0.5))
    a, b = left[:, np.newaxis].astype(np.float64) + grown, right[np.newaxis].astype(np.float64) + grown
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    areas = [np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (a, b)]
    iou: NDArray[np.float64] = shared / (areas[0] + areas[1] - shared)
    return iou


def _pair_up(overlaps: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns that belong together: greatest overlap first, each once."""
    rows, columns = np.nonzero(overlaps >= _PAIR_IOU)
    order = np.argsort(-overlaps[rows, columns], kind="stable")
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    pairs = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in taken_rows and column not in taken_columns:
            taken_rows.add(row)
            taken_columns.add(column)
            pairs.append((row, column))
    left, right = np.array(sorted(pairs), np.intp).reshape(-1, 2).T
    return left, right


def _excused(
    mine: Found, row: int, theirs: Found, overlaps: NDArray[np.float64], rule: tuple[Asked, Tolerance]
) -> bool:
    asked, tolerance = rule
    score = mine.scores[row]
    full = len(theirs.scores) >= asked.limit
    needed = max(asked.confidence, float(theirs.scores.min())) if full else asked.confidence
    if score <= needed + tolerance.score:
        return True
    same_class = theirs.class_ids == mine.class_ids[row]
    nearly_suppressed = overlaps >= asked.iou - _CLIPPING_SLACK - (1 - tolerance.iou)
    if bool((same_class & nearly_suppressed & (theirs.scores >= score - tolerance.score)).any()):
        return True
    same_place = (overlaps >= tolerance.iou) & (np.abs(theirs.scores - score) <= tolerance.score)
    return bool((same_place & ~same_class).any())


def _defect(
    image: str,
    kind: _Kind,
    found: Found,
    row: int,
    drift: tuple[float, float] = (0.0, 0.0),
) -> Defect:
    left, top, right, bottom = map(float, found.xyxy[row])
    return Defect(image, kind, int(found.class_ids[row]), (left, top, right, bottom), float(found.scores[row]), *drift)
