"""The knobs of comparing detections, apart from it so that reading settings loads no numpy."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffPolicy:
    """When two boxes are one object, and when that object is as it was. All in 0..1.

    Two boxes are one object from an IoU of `match_iou`; it has moved below `same_iou`, and is rescored where its scores differ by more than
    `same_score`. Where neither box of an object scores `min_score`, it is not counted; a box below it can still be the other half of one
    above, so that an object whose score wavers around a threshold is neither lost nor added.
    """

    match_iou: float = 0.5
    same_iou: float = 0.9
    same_score: float = 0.05
    min_score: float = 0.0
