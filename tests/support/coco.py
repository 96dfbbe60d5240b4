"""Average precision on COCO ground truth, by the reference evaluator."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectors.base import Boxes


def load_truth(path: Path) -> COCO:
    """Ground truth in COCO's own format."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def mean_average_precision(truth: COCO, image_ids: Sequence[int], boxes: Boxes) -> tuple[float, float]:
    """mAP50-95 and mAP50 of `boxes`, one entry for each of `image_ids`, over these images.

    COCO's category ids are sparse, a model's class ids dense: the n-th class is the n-th category in order of id.
    """
    owners = np.repeat(np.asarray(image_ids), np.diff(boxes.offsets))
    categories = np.array(sorted(truth.getCatIds()))[boxes.class_ids]
    extents = boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]
    rows = np.column_stack((owners, boxes.xyxy[:, :2], extents, boxes.scores, categories)).astype(np.float64)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.params.imgIds = list(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])
