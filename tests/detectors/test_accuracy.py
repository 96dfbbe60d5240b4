"""Real photographs through a real model: both backends find what Ultralytics itself finds, and score as it does."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.base import Boxes, Image
from detectors.decode import decode
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.records import DetectParameters
from tests.support.coco import load_truth, mean_average_precision
from tests.support.data import shared_dir
from tests.support.models import coco_checkpoint, yolo_onnx

__all__ = ["yolo_onnx"]

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(400),
    pytest.mark.skipif(coco_checkpoint() is None, reason="no model: the shared data is not here"),
]

# Ultralytics' own prediction on single arrays, each with its own rectangle, as `x1 y1 x2 y2 score class` rows.
_PREDICT = """
import sys
from pathlib import Path
import cv2, numpy as np
from detectors.ultralytics import import_confined
model = import_confined().YOLO(sys.argv[1])
found = {}
for path in sys.argv[3:]:
    result = model.predict(cv2.imread(path), conf=0.25, iou=0.7, max_det=300, imgsz=640, verbose=False, device="cpu")[0]
    found[Path(path).stem] = result.boxes.data.numpy()
np.savez(sys.argv[2], **found)
"""
COMPARED = 12


@pytest.fixture(scope="module")
def photographs() -> list[Path]:
    shared = shared_dir()
    assert shared is not None
    return sorted((shared / "datasets" / "coco-val-80" / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def images(photographs: list[Path]) -> list[Image]:
    return [Image(decode(path.read_bytes(), 10_000_000)) for path in photographs]


@pytest.fixture(scope="module")
def reference(photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[NDArray[np.float32]]:
    """What Ultralytics predicts, in a process of its own."""
    out = tmp_path_factory.mktemp("reference") / "boxes.npz"
    command = [sys.executable, "-c", _PREDICT, str(coco_checkpoint()), str(out), *map(str, photographs[:COMPARED])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        return [found[path.stem] for path in photographs[:COMPARED]]


@pytest.fixture(scope="module", params=["openvino", "ultralytics"])
def found(request: pytest.FixtureRequest, images: list[Image]) -> Iterator[Boxes]:
    path = request.getfixturevalue("yolo_onnx") if request.param == "openvino" else coco_checkpoint()
    detector = open_detector(ModelSpec(path=str(path), precision="f32"))
    yield detector.detect(images[:COMPARED], [DetectParameters()] * COMPARED)
    detector.close()


def test_a_backend_finds_what_ultralytics_finds(found: Boxes, reference: list[NDArray[np.float32]]) -> None:
    assert sum(len(rows) for rows in reference) > 50
    for index, expected in enumerate(reference):
        rows = slice(int(found.offsets[index]), int(found.offsets[index + 1]))
        assert found.class_ids[rows].tolist() == expected[:, 5].astype(int).tolist()
        np.testing.assert_allclose(found.scores[rows], expected[:, 4], atol=2e-3)
        assert (paired_iou(found.xyxy[rows], expected[:, :4]) > 0.99).all()


def paired_iou(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of each row with the row beside it."""
    sides = np.minimum(left[:, 2:], right[:, 2:]) - np.maximum(left[:, :2], right[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (left, right)]
    iou: NDArray[np.float32] = shared / (areas[0] + areas[1] - shared)
    return iou


def test_mean_average_precision_is_that_of_the_model(
    yolo_onnx: Path, images: list[Image], photographs: list[Path]
) -> None:
    """The model is documented at mAP50-95 0.386 and mAP50 0.538 on these photographs, by Ultralytics' validation."""
    shared = shared_dir()
    assert shared is not None
    detector = open_detector(ModelSpec(path=str(yolo_onnx), precision="f32", confidence=0.001))
    boxes = detector.detect(images, [DetectParameters()] * len(images))
    truth = load_truth(shared / "datasets" / "coco-val-80" / "annotations.json")
    strict, loose = mean_average_precision(truth, [int(path.stem) for path in photographs], boxes)
    print(f"mAP50-95 {strict:.4f}, mAP50 {loose:.4f}")
    assert strict == pytest.approx(0.386, abs=0.02)
    assert loose == pytest.approx(0.538, abs=0.025)
