"""How well boxes agree with ground truth: average precision, precision and recall, slices, confusion, calibration.

Pure: boxes in, figures out. Average precision is that of pycocotools, COCO's reference; correct is, in all other figures, what it
matches at IoU 0.5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.base import Boxes
from detectors.evaluation_attributes import Values, measure_shapes
from detectors.evaluation_confusion import Confusion, confuse
from detectors.evaluation_matching import Matches, Matching, match
from detectors.evaluation_slices import SliceScore, score_slices
from detectors.evaluation_threshold import confidence_for_f1
from detectors.evaluation_truth import ClassMap, GroundTruth

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

    `map50_95` and `map50`: means over the classes that are in the images. `matches`: all detections, for `confidence_for_precision`.
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
    slices: tuple[SliceScore, ...]
    confusion: Confusion
    matches: Matches


def evaluate(
    truth: GroundTruth,
    image_ids: Sequence[int],
    boxes: Boxes,
    classes: ClassMap,
    confidence: float | None = None,
    appearance: Values | None = None,
) -> Evaluation:
    """Hold `boxes`, one entry for each of `image_ids`, against the truth of these images.

    `confidence`: where to report precision and recall; None takes the score with the best F1 of all classes together. Ask the
    detector for as low a confidence as 0.001: average precision looks at the whole range of scores. `appearance`: what is known of the
    objects beyond their shapes, for slices.
    """
    matching = match(truth, image_ids, boxes, classes)
    together = Matches.join([matched.loose() for matched in matching.categories.values()])
    at = confidence_for_f1(together) if confidence is None else confidence
    precision, recall = (value or 0.0 for value in together.precision_and_recall(at))
    scores = _class_scores(matching, truth.categories, at)
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
        slices=score_slices(matching.categories, truth.categories, _merge(measure_shapes(truth), appearance or {}), at),
        confusion=confuse(matching, truth.objects, truth.categories, at),
        matches=together,
    )


def _class_scores(matching: Matching, names: Mapping[int, str], confidence: float) -> tuple[ClassScore, ...]:
    scores = []
    for column, (category_id, matched) in enumerate(matching.categories.items()):
        of_class = matched.loose()
        strict, loose = matching.precision[:, :, column], matching.precision[0, :, column]
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


def _merge(shapes: Values, appearance: Values) -> Values:
    return {object_id: {**known, **appearance.get(object_id, {})} for object_id, known in shapes.items()}


def _calibrate(matches: Matches) -> Calibration:
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
