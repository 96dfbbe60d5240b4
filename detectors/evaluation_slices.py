"""Average precision of slices of the objects: by size, tilt, blur, brightness. Pure: matches in, figures out.

Objects have a size, a tilt, a blur; what was detected where nothing is has none, and counts in every slice. So that a slice is not worse
for having few objects, precision is the normalised one of Hoiem, Chodpathumwan and Dai, "Diagnosing Error in Object Detectors" (2012):
what it would be were there as many objects in the slice as in all, R N / (R N + F). Objects of other slices count neither way. The slice of
all objects has exactly COCO's average precision, and slices can be compared with it and with each other.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.evaluation_attributes import Values
from detectors.evaluation_matching import CategoryMatches

_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True)
class Slicing:
    """How objects are parted by the attribute `name`: into `slices`, at `bounds`, one less; what is on a bound is above it."""

    name: str
    bounds: tuple[float, ...]
    slices: tuple[str, ...]

    def place(self, value: float) -> str:
        """The slice of a value."""
        return self.slices[bisect_right(self.bounds, value)]


SLICINGS = (
    Slicing("size", (32, 96), ("small", "medium", "large")),  # COCO's areas, 32 and 96 pixels squared
    Slicing("side", (32, 96), ("under32", "32to96", "over96")),
    Slicing("tilt", (10, 30), ("level", "leaning", "diagonal")),
    Slicing("blur", (1, 2), ("sharp", "soft", "blurred")),
    Slicing("brightness", (0.3, 0.7), ("dark", "medium", "bright")),
)


@dataclass(frozen=True, slots=True)
class SliceScore:
    """Figures of the objects of a slice, means over its classes or those of one; `recall` is over all its objects, at a confidence.

    None where there is no object of the kind.
    """

    slicing: str
    name: str
    objects: int
    map50_95: float | None
    map50: float | None
    recall: float | None
    classes: Mapping[str, "SliceScore"]


def score_slices(
    matches: Mapping[int, CategoryMatches], names: Mapping[int, str], values: Values, confidence: float
) -> tuple[SliceScore, ...]:
    """Every slice that an object lies in, by slicing; objects without the attribute take part in none of them."""
    scores = []
    for slicing in SLICINGS:
        places = {
            object_id: slicing.place(known[slicing.name])
            for object_id, known in values.items()
            if slicing.name in known
        }
        for name in slicing.slices:
            chosen = {object_id for object_id, place in places.items() if place == name}
            score = _score((slicing.name, name), chosen, matches, names, confidence)
            if score.objects:
                scores.append(score)
    return tuple(scores)


def average_precision(
    correct: NDArray[np.bool_], wrong: NDArray[np.bool_], objects: int, weight: float = 1.0
) -> NDArray[np.float64]:
    """COCO's average precision at each IoU threshold: the mean of precision at 101 recalls.

    `correct`, `wrong`: (thresholds, n), of detections, best first; neither: it does not count. `objects`: to find, at least one.
    `weight`: for how many each correct one stands.
    """
    hits, misses = np.cumsum(correct, axis=1), np.cumsum(wrong, axis=1)
    weighed = weight * hits
    precision = weighed / np.maximum(weighed + misses, np.finfo(np.float64).tiny)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate((envelope, np.zeros((len(envelope), 1))), axis=1)
    recalls = hits / objects
    return np.array([row[np.searchsorted(at, _RECALLS)].mean() for row, at in zip(padded, recalls, strict=True)])


def _score(
    place: tuple[str, str],
    chosen: set[int],
    matches: Mapping[int, CategoryMatches],
    names: Mapping[int, str],
    confidence: float,
) -> SliceScore:
    ids = np.array(sorted(chosen), np.int64)
    classes = {names[number]: _score_class(place, ids, matched, confidence) for number, matched in matches.items()}
    shown = {name: score for name, score in classes.items() if score is not None}
    objects = sum(score.objects for score in shown.values())
    found = sum((score.recall or 0) * score.objects for score in shown.values())
    return SliceScore(
        *place,
        objects=objects,
        map50_95=_mean([score.map50_95 for score in shown.values()]),
        map50=_mean([score.map50 for score in shown.values()]),
        recall=found / objects if objects else None,
        classes=shown,
    )


def _score_class(
    place: tuple[str, str], ids: NDArray[np.int64], matched: CategoryMatches, confidence: float
) -> SliceScore | None:
    objects = int(np.isin(matched.wanted, ids).sum())
    if not objects:
        return None
    correct = np.isin(matched.objects, ids) & ~matched.ignored
    wrong = (matched.objects == 0) & ~matched.ignored
    precision = average_precision(correct, wrong, objects, len(matched.wanted) / objects)
    found = int((correct[0] & (matched.scores >= confidence)).sum())
    return SliceScore(*place, objects, float(precision.mean()), float(precision[0]), found / objects, {})


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
