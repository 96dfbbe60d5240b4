"""How well boxes agree with ground truth: average precision, precision and recall, calibration. Pure: boxes in, figures out.

Average precision is that of pycocotools, COCO's reference, and so are the matches on which everything else rests: a detection is
correct where it is matched to an object of its class at IoU 0.5, best score first, each object once. Detections matched to a crowd
count neither way.
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

# The score that a detection needs to take part in the calibration error: the engine's own default, so that it is about boxes that
# users see. Thousands of boxes near 0, which only average precision asks for, would hide the rest.
CALIBRATION_FLOOR = 0.25
_BINS = 10

_Curve = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ClassScore:
    """One category's figures. `curve`: precision at recalls 0, 0.01 ... 1 (101 values), IoU 0.5.

    The two average precisions and `recall` are None where no object of the category is in the images, `precision` where nothing
    was detected.
    """

    label: str
    objects: int
    map50_95: float | None
    map50: float | None
    precision: float | None
    recall: float | None
    curve: _Curve


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far scores are from the share that is correct.

    Scores are put into ten bins of equal width over 0..1; `bins`: (detections, mean score, share correct) of each that is not
    empty. `error`: the mean over detections of their bin's |mean score - share correct|, None where there are no detections.
    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), on detections as Kueppers et al., "Multivariate
    Confidence Calibration for Object Detection" (2020), have it: correct is what is matched at IoU 0.5.
    """

    error: float | None
    floor: float
    bins: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The figures of a model on some images; `confidence` is where `precision`, `recall` and `f1` hold, over all classes together.

    `map50_95` and `map50`: means over the classes that are in the images.
    """

    images: int
    objects: int
    detections: int
    map50_95: float
    map50: float
    confidence: float
    precision: float
    recall: float
    f1: float
    calibration: Calibration
    classes: tuple[ClassScore, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Matches:
    """Detections that count, of one category or of all. `objects`: how many there are to find."""

    scores: NDArray[np.float64]
    correct: NDArray[np.bool_]
    objects: int

    @classmethod
    def join(cls, parts: Sequence["_Matches"]) -> "_Matches":
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


def evaluate(
    truth: GroundTruth, image_ids: Sequence[int], boxes: Boxes, classes: ClassMap, confidence: float | None = None
) -> Evaluation:
    """Hold `boxes`, one entry for each of `image_ids`, against the truth of these images.

    `confidence`: where to report precision and recall; None takes the score with the best F1 of all classes together. Ask the
    detector for as low a confidence as 0.001: average precision looks at the whole range of scores.
    """
    category_ids = sorted(category_id for category_id in classes.category_ids if category_id is not None)
    evaluator = _run_pycocotools(truth, image_ids, _as_annotations(image_ids, boxes, classes), category_ids)
    matches = {category_id: _matches_of(evaluator, category_id) for category_id in category_ids}
    together = _Matches.join(list(matches.values()))
    at = _best_confidence(together) if confidence is None else confidence
    precision, recall = (value or 0.0 for value in together.precision_and_recall(at))
    scores = _class_scores(evaluator, truth.categories, matches, at)
    return Evaluation(
        images=len(image_ids),
        objects=together.objects,
        detections=len(together.scores),
        map50_95=_mean([score.map50_95 for score in scores]),
        map50=_mean([score.map50 for score in scores]),
        confidence=at,
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        calibration=_calibrate(together),
        classes=scores,
    )


def _as_annotations(image_ids: Sequence[int], boxes: Boxes, classes: ClassMap) -> list[dict[str, Any]]:
    owners = np.repeat(np.asarray(image_ids), np.diff(boxes.offsets)).tolist()
    corners = boxes.xyxy.astype(np.float64)
    places = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
    rows = zip(owners, places.tolist(), boxes.scores.tolist(), boxes.class_ids.tolist(), strict=True)
    return [
        {
            "id": number,
            "image_id": owner,
            "category_id": classes.category_ids[class_id],
            "bbox": place,
            "area": place[2] * place[3],
            "score": score,
            "iscrowd": 0,
        }
        for number, (owner, place, score, class_id) in enumerate(rows, 1)
        if classes.category_ids[class_id] is not None
    ]


def _run_pycocotools(
    truth: GroundTruth, image_ids: Sequence[int], found: Sequence[Mapping[str, Any]], category_ids: Sequence[int]
) -> Any:
    """The evaluator, run. It keeps COCO's bound of the best 100 detections per class and image."""
    coco, cocoeval = import_pycocotools("coco"), import_pycocotools("cocoeval")
    dataset = truth.coco.dataset
    detected = as_coco(coco.COCO, dataset["images"], dataset["categories"], found)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = cocoeval.COCOeval(truth.coco, detected, "bbox")
        evaluator.params.imgIds = list(image_ids)
        evaluator.params.catIds = list(category_ids)
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def _matches_of(evaluator: Any, category_id: int) -> _Matches:
    """Matches at IoU 0.5, over objects of any size."""
    any_size = evaluator.params.areaRng[0]
    parts = []
    for entry in evaluator.evalImgs:
        if entry is None or entry["category_id"] != category_id or entry["aRng"] != any_size:
            continue
        counted = ~entry["dtIgnore"][0].astype(np.bool_)
        scores = np.array(entry["dtScores"], np.float64)[counted]
        correct = entry["dtMatches"][0][counted] > 0
        parts.append(_Matches(scores, correct, int((np.asarray(entry["gtIgnore"]) == 0).sum())))
    return _Matches.join(parts)


def _class_scores(
    evaluator: Any, names: Mapping[int, str], matches: Mapping[int, _Matches], confidence: float
) -> tuple[ClassScore, ...]:
    # Precision by IoU threshold, recall, category, object size (0: any) and bound on detections (-1: the largest).
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    scores = []
    for column, category_id in enumerate(evaluator.params.catIds):
        of_class = matches[category_id]
        strict, loose = precision[:, :, column], precision[0, :, column]
        reached, recall = of_class.precision_and_recall(confidence)
        scores.append(
            ClassScore(
                label=names[category_id],
                objects=of_class.objects,
                map50_95=float(strict.mean()) if of_class.objects else None,
                map50=float(loose.mean()) if of_class.objects else None,
                precision=reached,
                recall=recall,
                curve=loose,
            )
        )
    return tuple(scores)


def _best_confidence(matches: _Matches) -> float:
    """The lowest score to keep for the best F1 of all classes together; 0 where nothing was detected."""
    if not len(matches.scores):
        return 0.0
    order = np.argsort(-matches.scores, kind="stable")
    correct = np.cumsum(matches.correct[order])
    # F1 = 2 TP / (detections + objects)
    f1 = 2 * correct / (np.arange(1, len(order) + 1) + matches.objects)
    return float(matches.scores[order][f1.argmax()])


def _calibrate(matches: _Matches) -> Calibration:
    shown = matches.scores >= CALIBRATION_FLOOR
    scores, correct = matches.scores[shown], matches.correct[shown]
    places = np.minimum((scores * _BINS).astype(np.intp), _BINS - 1)
    chosen = [places == place for place in range(_BINS)]
    bins = tuple(
        (int(rows.sum()), float(scores[rows].mean()), float(correct[rows].mean())) for rows in chosen if rows.any()
    )
    error = sum(count * abs(score - share) for count, score, share in bins) / len(scores) if len(scores) else None
    return Calibration(error, CALIBRATION_FLOOR, bins)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0
