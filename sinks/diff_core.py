"""What changed between two sets of detections of the same image. Pure, and the same for any order of the boxes in a set."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from schemas.records import Detection
from sinks.diff_policy import DiffPolicy

_Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]


class Change(StrEnum):
    """What became of an object. One that both moved and got another score has `moved`."""

    SAME = "same"
    MOVED = "moved"
    RESCORED = "rescored"
    RECLASSIFIED = "reclassified"
    ADDED = "added"
    LOST = "lost"


# What the two sides do not agree on: whether there is an object, and what it is. A box a little elsewhere is still the same finding.
DISAGREEMENTS = (Change.RECLASSIFIED, Change.ADDED, Change.LOST)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Boxes of one image. `xyxy`: float32 (m, 4), corners in pixels; `scores`: float32 (m,) in 0..1; `labels`: str (m,).

    Labels and not class ids: two versions of a model may number their classes differently.
    """

    xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.str_]

    @classmethod
    def of(cls, detections: Sequence[Detection]) -> Self:
        """The boxes of a result."""
        corners = [(box.x1, box.y1, box.x2, box.y2) for box in detections]
        return cls(
            np.array(corners, np.float32).reshape(-1, 4),
            np.array([box.score for box in detections], np.float32),
            np.array([box.label for box in detections], np.str_),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ImageDiff:
    """The objects of an image, one a row: those that the first side has in its order, then those that were added.

    `first`, `second`: the object's row on each side, -1 where it is not; `changes`: its `Change`; `iou`: of its two boxes, 0 where there is
    one only.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    changes: tuple[Change, ...]
    iou: NDArray[np.float64]

    @property
    def objects(self) -> int:
        """How many objects there are on either side."""
        return len(self.changes)

    @property
    def disagreed(self) -> int:
        """How many of them the two sides do not agree on: `DISAGREEMENTS`."""
        return sum(change in DISAGREEMENTS for change in self.changes)

    def count(self, change: Change) -> int:
        """How many objects this became of."""
        return self.changes.count(change)


def compare(first: Seen, second: Seen, policy: DiffPolicy | None = None) -> ImageDiff:
    """What became of the objects of `first` in `second`.

    Boxes are matched greedily by IoU, those of the same label before those of different ones. Exchanging the two sides exchanges added and
    lost, and nothing else.
    """
    rules = policy or DiffPolicy()
    overlaps = _overlaps(first.xyxy, second.xyxy)
    alike = first.labels[:, np.newaxis] == second.labels[np.newaxis]
    partner = np.full(len(first.scores), -1, np.intp)
    free = np.ones(len(second.scores), np.bool_)
    for allowed in (alike, ~alike):
        rows, columns = np.nonzero(allowed & (overlaps >= rules.match_iou) & (overlaps > 0))
        _match(_ordered((rows, columns), overlaps[rows, columns], first, second), partner, free)
    rows = np.arange(len(partner), dtype=np.intp)
    added = np.flatnonzero(free)
    diff = ImageDiff(
        np.concatenate((rows, np.full(len(added), -1, np.intp))),
        np.concatenate((partner, added)),
        (*_judge(first, second, partner, overlaps, rules), *[Change.ADDED] * len(added)),
        np.concatenate((np.where(partner >= 0, _at(overlaps, rows, partner), 0), np.zeros(len(added)))),
    )
    return _above(rules.min_score, diff, first, second)


def _match(pairs: _Pairs, partner: NDArray[np.intp], free: NDArray[np.bool_]) -> None:
    """Make those of the pairs partners that both have none yet, in this order."""
    for row, column in zip(pairs[0].tolist(), pairs[1].tolist(), strict=True):
        if partner[row] < 0 and free[column]:
            partner[row], free[column] = column, False


def _ordered(pairs: _Pairs, iou: NDArray[np.float64], first: Seen, second: Seen) -> _Pairs:
    """Pairs of rows, the one that overlaps most at the head; of equal ones the one whose scores are closest."""
    rows, columns = pairs
    if len(iou) < 2 or (np.bincount(rows).max() == 1 and np.bincount(columns).max() == 1):
        return pairs  # none contends with another
    apart = np.abs(first.scores[rows] - second.scores[columns])
    order = np.lexsort((apart, -iou))
    if ((np.diff(iou[order]) == 0) & (np.diff(apart[order]) == 0)).any():
        # What the boxes are decides then, whichever side is the first: not their order.
        ranks = _ranks(first, second)
        one, two = ranks[rows], ranks[len(first.scores) + columns]
        order = np.lexsort((np.maximum(one, two), np.minimum(one, two), apart, -iou))
    return rows[order], columns[order]


def _ranks(first: Seen, second: Seen) -> NDArray[np.intp]:
    """A number for each box of both sides, the same for equal boxes."""
    labels = np.unique(np.concatenate((first.labels, second.labels)), return_inverse=True)[1]
    boxes = [np.concatenate((side.xyxy, side.scores[:, np.newaxis]), axis=1) for side in (first, second)]
    table = np.concatenate((np.concatenate(boxes), labels.reshape(-1, 1)), axis=1)
    ranks: NDArray[np.intp] = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
    return ranks


def _judge(
    first: Seen, second: Seen, partner: NDArray[np.intp], overlaps: NDArray[np.float64], rules: DiffPolicy
) -> list[Change]:
    """What became of each box of the first side."""
    changes = []
    for row, column in enumerate(partner.tolist()):
        if column < 0:
            changes.append(Change.LOST)
        elif first.labels[row] != second.labels[column]:
            changes.append(Change.RECLASSIFIED)
        elif overlaps[row, column] < rules.same_iou:
            changes.append(Change.MOVED)
        elif abs(float(first.scores[row]) - float(second.scores[column])) > rules.same_score:
            changes.append(Change.RESCORED)
        else:
            changes.append(Change.SAME)
    return changes


def _above(least: float, diff: ImageDiff, first: Seen, second: Seen) -> ImageDiff:
    """Without the objects whose boxes all score less than `least`."""
    best = np.maximum(_scores(first, diff.first), _scores(second, diff.second))
    kept = np.flatnonzero(best >= least)
    if len(kept) == diff.objects:
        return diff
    changes = tuple(diff.changes[row] for row in kept.tolist())
    return ImageDiff(diff.first[kept], diff.second[kept], changes, diff.iou[kept])


def _scores(side: Seen, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """The scores of these rows, below any where there is none."""
    padded = np.append(side.scores, np.float32(-1))
    return padded[rows]


def _at(overlaps: NDArray[np.float64], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
    """An overlap for each row, anything where its column is -1."""
    return overlaps[rows, columns] if overlaps.shape[1] else np.zeros(len(rows))


def _overlaps(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU of each with each; 1 for equal boxes, also without an area."""
    one, two = first.astype(np.float64).T[:, :, np.newaxis], second.astype(np.float64).T[:, np.newaxis]
    wide = np.minimum(one[2], two[2]) - np.maximum(one[0], two[0])
    high = np.minimum(one[3], two[3]) - np.maximum(one[1], two[1])
    shared = np.maximum(wide, 0) * np.maximum(high, 0)
    areas = [np.maximum(box[2] - box[0], 0) * np.maximum(box[3] - box[1], 0) for box in (one, two)]
    share: NDArray[np.float64] = np.divide(shared, sum(areas) - shared, out=np.zeros_like(shared), where=shared > 0)
    share[(one[0] == two[0]) & (one[1] == two[1]) & (one[2] == two[2]) & (one[3] == two[3])] = 1.0
    return share
