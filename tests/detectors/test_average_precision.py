"""Average precision without pycocotools, held against pycocotools."""

import contextlib
import io
from itertools import chain

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detectors.average_precision import Labelled, average_precision
from detectors.boxes import Found

CLASSES = 3


def boxes(rng: np.random.Generator, count: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    corners = rng.integers(0, 60, (count, 2)).astype(np.float64)
    return np.concatenate((corners, corners + rng.integers(4, 40, (count, 2))), axis=1)


def picture(seed: int) -> tuple[Labelled, Found]:
    """Objects, some of them crowds, and detections of which some are about where objects are; scores that are often equal."""
    rng = np.random.default_rng(seed)
    objects = boxes(rng, int(rng.integers(0, 9)))
    class_ids = rng.integers(0, CLASSES, len(objects))
    copies = np.repeat(objects, 2, axis=0) + rng.integers(-4, 5, (2 * len(objects), 4))
    copies[:, 2:] = np.maximum(copies[:, 2:], copies[:, :2] + 1)
    found = np.concatenate((copies, boxes(rng, int(rng.integers(0, 9)))))
    guesses = np.concatenate((np.repeat(class_ids, 2), rng.integers(0, CLASSES, len(found) - len(copies))))
    scores = rng.integers(1, 8, len(found)) / 8
    return (
        Labelled(objects, class_ids.astype(np.intp), rng.random(len(objects)) < 0.2),
        Found(found.astype(np.float32), scores.astype(np.float32), guesses.astype(np.int32)),
    )


def by_pycocotools(truth: list[Labelled], found: list[Found], class_id: int) -> float:
    """-1 where there is no object of the class."""

    def rows(number: int, xyxy: object, ids: object, **more: object) -> list[dict[str, object]]:
        columns = zip(np.asarray(xyxy, np.float64), np.asarray(ids), *map(np.asarray, more.values()), strict=True)
        return [
            {
                "image_id": number,
                "category_id": int(kind),
                "bbox": [*box[:2], *(box[2:] - box[:2])],
                "area": float(np.prod(box[2:] - box[:2])),
                "iscrowd": 0,
                **{name: value.item() for name, value in zip(more, values, strict=True)},
            }
            for box, kind, *values in columns
        ]

    def coco(annotations: list[dict[str, object]]) -> COCO:
        made = COCO()
        made.dataset = {
            "images": [{"id": number} for number in range(len(truth))],
            "categories": [{"id": number} for number in range(CLASSES)],
            "annotations": [{**entry, "id": number} for number, entry in enumerate(annotations, 1)],
        }
        made.createIndex()
        return made

    with contextlib.redirect_stdout(io.StringIO()):
        labels = [rows(n, one.xyxy, one.class_ids, iscrowd=one.crowds.astype(int)) for n, one in enumerate(truth)]
        guesses = [rows(n, one.xyxy, one.class_ids, score=one.scores) for n, one in enumerate(found)]
        evaluator = COCOeval(coco([*chain(*labels)]), coco([*chain(*guesses)]), "bbox")
        evaluator.params.catIds = [class_id]
        evaluator.evaluate()
        evaluator.accumulate()
    return float(evaluator.eval["precision"][0, :, 0, 0, -1].mean())


@pytest.mark.parametrize("seed", range(25))
def test_it_is_that_of_pycocotools(seed: int) -> None:
    truth, found = (list(column) for column in zip(*(picture(100 * seed + at) for at in range(6)), strict=True))
    for class_id in range(CLASSES):
        mine = average_precision(truth, found, class_id)
        theirs = by_pycocotools(truth, found, class_id)
        assert (-1 if mine is None else mine) == pytest.approx(theirs, abs=1e-9)


def test_nothing_found_is_nothing_and_everything_found_is_one() -> None:
    truth, _ = picture(1)
    plain = Labelled(truth.xyxy, np.zeros(len(truth.xyxy), np.intp), np.zeros(len(truth.xyxy), np.bool_))
    nothing = Found(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
    everything = Found(
        plain.xyxy.astype(np.float32), np.ones(len(plain.xyxy), np.float32), plain.class_ids.astype(np.int32)
    )
    assert average_precision([plain], [nothing], 0) == 0
    assert average_precision([plain], [everything], 0) == 1
    assert average_precision([plain], [everything], 1) is None
