"""What is taken for what: objects by the class that they were detected as, with a row and a column for the background. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.evaluation_matching import Matching

BACKGROUND = "background"
_IOU = 0.5

_Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """How often an object of one class was detected as another, at `confidence` and IoU 0.5.

    `counts`: int64 (labels, labels): rows what is there, columns what was detected; the last of `labels` is the background: its row holds
    detections of nothing, its column objects that were not detected.
    """

    labels: tuple[str, ...]
    counts: NDArray[np.int64]
    confidence: float


def confuse(
    matching: Matching, objects: Mapping[int, _Entry], names: Mapping[int, str], confidence: float
) -> Confusion:
    """Count; `objects`: COCO's annotations by id, `names`: of the categories.

    Whatever is matched within its class stays so, which makes the diagonal what precision and recall count, too. What is left of
    detections and objects is then matched across classes, best overlap first.
    """
    places: dict[int | None, int] = {category_id: place for place, category_id in enumerate(matching.categories)}
    places[None] = len(places)
    counts = np.zeros((len(places),) * 2, np.int64)
    wrong, missed = dict[Any, list[_Entry]](), dict[Any, list[_Entry]]()
    for category_id, matched in matching.categories.items():
        shown = (matched.scores >= confidence) & ~matched.ignored[0]
        hits = set(matched.objects[0, shown].tolist()) - {0}
        counts[places[category_id], places[category_id]] = len(hits)
        for row in matched.detections[shown & (matched.objects[0] == 0)].tolist():
            wrong.setdefault(matching.found[row]["image_id"], []).append(matching.found[row])
        for object_id in set(matched.wanted.tolist()) - hits:
            missed.setdefault(objects[object_id]["image_id"], []).append(objects[object_id])
    for image_id in wrong.keys() | missed.keys():
        for truth, detected in _pair(missed.get(image_id, []), wrong.get(image_id, [])):
            counts[places[truth], places[detected]] += 1
    return Confusion((*(names[category_id] for category_id in matching.categories), BACKGROUND), counts, confidence)


def _pair(there: Sequence[_Entry], found: Sequence[_Entry]) -> list[tuple[int | None, int | None]]:
    """(category that is there, category detected) of what one image's classes left over; None: nothing."""
    overlaps = _overlaps(_corners(there), _corners(found))
    rows, columns = set(range(len(there))), set(range(len(found)))
    pairs: list[tuple[int | None, int | None]] = []
    while overlaps.size and overlaps.max() >= _IOU:
        row, column = divmod(int(overlaps.argmax()), len(found))
        pairs.append((there[row]["category_id"], found[column]["category_id"]))
        overlaps[row], overlaps[:, column] = 0, 0
        rows.remove(row)
        columns.remove(column)
    pairs += [(there[row]["category_id"], None) for row in rows]
    return pairs + [(None, found[column]["category_id"]) for column in columns]


def _corners(entries: Sequence[_Entry]) -> NDArray[np.float64]:
    places = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
    return np.concatenate((places[:, :2], places[:, :2] + places[:, 2:]), axis=1)


def _overlaps(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """(len(left), len(right)): IoU."""
    one, two = left[:, np.newaxis], right[np.newaxis]
    sides = np.minimum(one[..., 2:], two[..., 2:]) - np.maximum(one[..., :2], two[..., :2])
    shared = np.maximum(sides, 0).prod(axis=-1)
    areas = ((box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (one, two))
    overlaps: NDArray[np.float64] = shared / np.maximum(sum(areas) - shared, np.finfo(np.float64).tiny)
    return overlaps
