"""Which detection is matched to which object: by pycocotools, COCO's reference, on which every figure of an evaluation rests.

A detection is matched to an object of its class, best score first, each object once, at each of COCO's ten IoU thresholds 0.5, 0.55 ...
0.95. Detections matched to a crowd count neither way.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.base import Boxes
from detectors.evaluation_truth import ClassMap, GroundTruth, as_coco, import_pycocotools

_MOST_DETECTIONS = 100
_ANY_SIZE = (0, 1e10)


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Detections that count, of one category or of several, at IoU 0.5. `objects`: how many there are to find."""

    scores: NDArray[np.float64]
    correct: NDArray[np.bool_]
    objects: int

    @classmethod
    def join(cls, parts: Sequence["Matches"]) -> "Matches":
        """Those of several categories together."""
        return cls(
            np.concatenate([np.empty(0), *(part.scores for part in parts)]),
            np.concatenate([np.empty(0, np.bool_), *(part.correct for part in parts)]),
            sum(part.objects for part in parts),
        )

    def precision_and_recall(self, confidence: float) -> tuple[float | None, float | None]:
        """Of what scores at least `confidence`; None where there is nothing to divide by."""
        chosen = self.correct[self.scores >= confidence]
        correct = int(chosen.sum())
        return (correct / len(chosen) if len(chosen) else None), (correct / self.objects if self.objects else None)


@dataclass(frozen=True, slots=True, eq=False)
class CategoryMatches:
    """All detections of one category, best first, and what they are matched to.

    `scores`: (n,); `detections`: (n,), rows of `Matching.found`; `objects`: (10, n), ids of the objects that they are matched to at each
    IoU threshold, 0 for none; `ignored`: (10, n), matched to a crowd. `wanted`: ids of the objects to find.
    """

    scores: NDArray[np.float64]
    detections: NDArray[np.intp]
    objects: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    wanted: NDArray[np.int64]

    def loose(self) -> Matches:
        """Those that count at IoU 0.5."""
        counted = ~self.ignored[0]
        return Matches(self.scores[counted], self.objects[0, counted] > 0, len(self.wanted))


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """All that was matched. `found`: detections as COCO's annotations; `precision`: (10, 101, categories) by IoU threshold and recall."""

    found: Sequence[Mapping[str, Any]]
    categories: Mapping[int, CategoryMatches]
    precision: NDArray[np.float64]


def match(truth: GroundTruth, image_ids: Sequence[int], boxes: Boxes, classes: ClassMap) -> Matching:
    """Match `boxes`, one entry for each of `image_ids`; of each class and image the best 100 (COCO's bound)."""
    found = _as_annotations(image_ids, boxes, classes)
    category_ids = sorted(category_id for category_id in classes.category_ids if category_id is not None)
    evaluator = _run_pycocotools(truth, image_ids, found, category_ids)
    entries: dict[int, list[Mapping[str, Any]]] = {category_id: [] for category_id in category_ids}
    for entry in evaluator.evalImgs:
        if entry is not None:
            entries[entry["category_id"]].append(entry)
    matched = {category_id: _join(entries[category_id]) for category_id in category_ids}
    # By IoU threshold, recall, category, and then the only object size and the only bound on detections.
    return Matching(found, matched, evaluator.eval["precision"][:, :, :, 0, 0])


def _as_annotations(image_ids: Sequence[int], boxes: Boxes, classes: ClassMap) -> list[dict[str, Any]]:
    owners = np.repeat(np.asarray(image_ids), np.diff(boxes.offsets)).tolist()
    corners = boxes.xyxy.astype(np.float64)
    places = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
    kept = [
        (owner, place, score, classes.category_ids[class_id])
        for owner, place, score, class_id in zip(
            owners, places.tolist(), boxes.scores.tolist(), boxes.class_ids.tolist(), strict=True
        )
        if classes.category_ids[class_id] is not None
    ]
    return [
        {
            "id": number,
            "image_id": owner,
            "category_id": category_id,
            "bbox": place,
            "area": place[2] * place[3],
            "score": score,
            "iscrowd": 0,
        }
        for number, (owner, place, score, category_id) in enumerate(kept, 1)
    ]


def _run_pycocotools(
    truth: GroundTruth, image_ids: Sequence[int], found: Sequence[Mapping[str, Any]], category_ids: Sequence[int]
) -> Any:
    """The evaluator, run over objects of any size: slices are made from its matches, not by running it again."""
    coco, cocoeval = import_pycocotools("coco"), import_pycocotools("cocoeval")
    dataset = truth.coco.dataset
    detected = as_coco(coco.COCO, dataset["images"], dataset["categories"], found)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = cocoeval.COCOeval(truth.coco, detected, "bbox")
        evaluator.params.imgIds = list(image_ids)
        evaluator.params.catIds = list(category_ids)
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [list(_ANY_SIZE)], ["all"]
        evaluator.params.maxDets = [_MOST_DETECTIONS]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def _join(entries: Sequence[Mapping[str, Any]]) -> CategoryMatches:
    """One category's images, as pycocotools leaves them."""
    thresholds = 10
    scores = np.concatenate([np.empty(0), *(np.asarray(entry["dtScores"], np.float64) for entry in entries)])
    rows = np.concatenate([np.empty(0, np.intp), *(np.asarray(entry["dtIds"], np.intp) - 1 for entry in entries)])
    objects = np.concatenate(
        [np.empty((thresholds, 0), np.int64), *(entry["dtMatches"].astype(np.int64) for entry in entries)], axis=1
    )
    ignored = np.concatenate(
        [np.empty((thresholds, 0), np.bool_), *(entry["dtIgnore"].astype(np.bool_) for entry in entries)], axis=1
    )
    wanted = [np.asarray(entry["gtIds"], np.int64)[np.asarray(entry["gtIgnore"], np.int64) == 0] for entry in entries]
    order = np.argsort(-scores, kind="stable")
    return CategoryMatches(
        scores[order],
        rows[order],
        objects[:, order],
        ignored[:, order],
        np.concatenate([np.empty(0, np.int64), *wanted]),
    )
