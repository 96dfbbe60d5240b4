"""What changed between two sets of detections of the same image. Pure, and the same for any order of the boxes in a set."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from schemas.records import Detection
from sinks.diff_policy import DiffPolicy


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
    ranks = _Ranks.of(first, second)
    partner = np.full(len(first.scores), -1, np.intp)
    free = np.ones(len(second.scores), np.bool_)
    for allowed in (alike, ~alike):
        _match(np.where(allowed, overlaps, 0), rules.match_iou, ranks, partner, free)
    rows = np.arange(len(partner), dtype=np.intp)
    added = np.flatnonzero(free)
    diff = ImageDiff(
        np.concatenate((rows, np.full(len(added), -1, np.intp))),
        np.concatenate((partner, added)),
        (*_judge(first, second, partner, overlaps, rules), *[Change.ADDED] * len(added)),
        np.concatenate((np.where(partner >= 0, _at(overlaps, rows, partner), 0), np.zeros(len(added)))),
    )
    return _above(rules.min_score, diff, first, second)


@dataclass(frozen=True, slots=True, eq=False)
class _Ranks:
    """What breaks ties between pairs of equal IoU, whichever side is the first: how far scores are apart, then what the boxes are."""

    apart: NDArray[np.float32]
    first: NDArray[np.intp]
    second: NDArray[np.intp]

    @classmethod
    def of(cls, first: Seen, second: Seen) -> Self:
        labels = np.unique(np.concatenate((first.labels, second.labels)), return_inverse=True)[1]
        numbers = [np.concatenate((side.xyxy, side.scores[:, np.newaxis]), axis=1) for side in (first, second)]
        table = np.concatenate((np.concatenate(numbers), labels.reshape(-1, 1)), axis=1)
        ranks = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
        apart = np.abs(first.scores[:, np.newaxis] - second.scores[np.newaxis])
        return cls(apart, ranks[: len(first.scores)], ranks[len(first.scores) :])

    def order(self, iou: NDArray[np.float64], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.intp]:
        """The pairs, the one to be matched first at the head."""
        one, two = self.first[rows], self.second[columns]
        return np.lexsort((np.maximum(one, two), np.minimum(one, two), self.apart[rows, columns], -iou))


def _match(
    overlaps: NDArray[np.float64], least: float, ranks: _Ranks, partner: NDArray[np.intp], free: NDArray[np.bool_]
) -> None:
    """Give each box of the first side without a `partner` the `free` one that it overlaps most, best pairs first."""
    open_rows = (partner < 0)[:, np.newaxis] & free[np.newaxis]
    rows, columns = np.nonzero((overlaps >= least) & (overlaps > 0) & open_rows)
    order = ranks.order(overlaps[rows, columns], rows, columns)
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if partner[row] < 0 and free[column]:
            partner[row], free[column] = column, False


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
    one, two = first.astype(np.float64)[:, np.newaxis], second.astype(np.float64)[np.newaxis]
    sides = np.minimum(one[..., 2:], two[..., 2:]) - np.maximum(one[..., :2], two[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    areas = [np.prod(np.maximum(box[..., 2:] - box[..., :2], 0), axis=-1) for box in (one, two)]
    union = areas[0] + areas[1] - shared
    share: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    share[(one == two).all(axis=-1)] = 1.0
    return share
