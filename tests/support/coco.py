"""Average precision on COCO ground truth, as `sightstream evaluate` has it."""

from collections.abc import Sequence

from detectors.base import Boxes
from detectors.evaluation import evaluate
from detectors.evaluation_truth import ClassMap, GroundTruth, read_truth

__all__ = ["load_truth", "mean_average_precision"]

load_truth = read_truth


def mean_average_precision(truth: GroundTruth, image_ids: Sequence[int], boxes: Boxes) -> tuple[float, float]:
    """mAP50-95 and mAP50 of `boxes`, one entry for each of `image_ids`; the n-th class is the n-th category in order of id."""
    figures = evaluate(truth, image_ids, boxes, ClassMap(tuple(sorted(truth.categories))))
    return figures.map50_95, figures.map50
