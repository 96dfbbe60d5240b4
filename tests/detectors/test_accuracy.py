"""Real photographs through a real model: every backend finds what Ultralytics itself finds, and scores as it does."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.base import Boxes, Image
from detectors.boxes import Found, join
from detectors.choice import is_installed
from detectors.decode import decode
from detectors.evaluation import evaluate
from detectors.evaluation_truth import GroundTruth, match_classes, read_truth
from detectors.export import ExportRequest, export_model
from detectors.openvino import precisions
from detectors.policy import ImagePolicy
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.records import DetectParameters
from tests.support.data import may_skip, shared_dir
from tests.support.models import coco_checkpoint, yolo_onnx

__all__ = ["yolo_onnx"]

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(600),
    pytest.mark.skipif(coco_checkpoint() is None and may_skip(), reason="no model: the shared data is not here"),
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
    result = model.predict(cv2.imread(path), conf=0.001, iou=0.7, max_det=300, imgsz=640, verbose=False, device="cpu")[0]
    found[Path(path).stem] = result.boxes.data.numpy()
np.savez(sys.argv[2], **found)
"""
EVERYTHING = DetectParameters(confidence=0.001, iou=0.7, max_detections=300)
COMPARED = 12

Score = Callable[[ModelSpec | Boxes], float]


@pytest.fixture(scope="module")
def shared() -> Path:
    directory = shared_dir()
    assert directory is not None, "CI is set, so these tests may not be skipped, but the shared data is not here"
    return directory / "datasets"


@pytest.fixture(scope="module")
def photographs(shared: Path) -> list[Path]:
    return sorted((shared / "coco-val-80" / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def images(photographs: list[Path]) -> list[Image]:
    return [Image(decode(path.read_bytes(), 10_000_000)) for path in photographs]


@pytest.fixture(scope="module")
def truth(shared: Path) -> GroundTruth:
    return read_truth(shared / "coco-val-80" / "annotations.json")


@pytest.fixture(scope="module")
def reference(photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[NDArray[np.float32]]:
    """What Ultralytics predicts, in a process of its own."""
    out = tmp_path_factory.mktemp("reference") / "boxes.npz"
    command = [sys.executable, "-c", _PREDICT, str(coco_checkpoint()), str(out), *map(str, photographs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        return [found[path.stem] for path in photographs]


@pytest.fixture(scope="module")
def score(images: list[Image], photographs: list[Path], truth: GroundTruth) -> Score:
    """mAP50-95 of a model, or of boxes, on the photographs."""
    classes = match_classes(tuple(truth.categories[number] for number in sorted(truth.categories)), truth.categories)

    def measure(subject: ModelSpec | Boxes) -> float:
        boxes = subject if isinstance(subject, Boxes) else detect_all(subject, images)
        figures = evaluate(truth, [int(path.stem) for path in photographs], boxes, classes)
        print(f"mAP50-95 {figures.map50_95:.4f}, mAP50 {figures.map50:.4f}")
        return figures.map50_95

    return measure


@pytest.fixture(scope="module")
def predicted(reference: list[NDArray[np.float32]], score: Score) -> float:
    """mAP50-95 of Ultralytics' own predict."""
    return score(join([Found(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int32)) for rows in reference]))


def detect_all(spec: ModelSpec, images: list[Image]) -> Boxes:
    detector = open_detector(spec)
    boxes = detector.detect(images, [EVERYTHING] * len(images))
    detector.close()
    return boxes


@pytest.fixture(scope="module", params=["openvino", "ultralytics"])
def found(request: pytest.FixtureRequest, images: list[Image]) -> Iterator[Boxes]:
    path = request.getfixturevalue("yolo_onnx") if request.param == "openvino" else coco_checkpoint()
    detector = open_detector(ModelSpec(path=str(path), precision="f32"))
    yield detector.detect(images[:COMPARED], [DetectParameters(confidence=0.25)] * COMPARED)
    detector.close()


def test_a_backend_finds_what_ultralytics_finds(found: Boxes, reference: list[NDArray[np.float32]]) -> None:
    good = [rows[rows[:, 4] > 0.25] for rows in reference[:COMPARED]]
    assert sum(len(rows) for rows in good) > 50
    for index, expected in enumerate(good):
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


def test_predict_itself_has_the_precision_that_the_model_is_documented_at(predicted: float) -> None:
    """mAP50-95 0.386, by Ultralytics' own validation."""
    assert predicted == pytest.approx(0.386, abs=0.005)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "ultralytics"])
def test_f32_scores_as_predict_does(backend: str, yolo_onnx: Path, score: Score, predicted: float) -> None:
    assert is_installed(backend)
    path = coco_checkpoint() if backend == "ultralytics" else yolo_onnx
    assert score(ModelSpec(path=str(path), backend=backend, precision="f32")) == pytest.approx(predicted, abs=0.003)


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_what_is_faster_loses_nothing(precision: str, yolo_onnx: Path, score: Score, predicted: float) -> None:
    """It may gain: of 80 photographs rounding moves the figure by up to 0.005 upwards, too."""
    spec = ModelSpec(path=str(yolo_onnx), backend="openvino", precision=precision)
    if precision not in {*precisions(spec), "auto"}:
        pytest.skip(f"the device does not compute in {precision}")
    assert score(spec) > predicted - 0.003


def test_an_export_to_half_precision_loses_nothing(
    yolo_onnx: Path, score: Score, predicted: float, tmp_path: Path
) -> None:
    out = tmp_path / "yolo.fp16.onnx"
    export_model(ExportRequest(source=yolo_onnx, target="onnx", precision="f16", out=out), ImagePolicy())
    spec = ModelSpec(path=str(out), backend="openvino", precision="f32")
    assert score(spec) == pytest.approx(predicted, abs=0.003)


def test_int8_loses_little_though_it_was_calibrated_on_quite_other_pictures(
    shared: Path, yolo_onnx: Path, score: Score, predicted: float, tmp_path: Path
) -> None:
    """Pictures of codes: none of the photographs that are scored, and none that is like them."""
    others = sorted((shared / "codes-real" / "images").iterdir())[::12]
    for path in others:
        (tmp_path / path.name).symlink_to(path)
    out = tmp_path / "yolo.int8.xml"
    request = ExportRequest(source=yolo_onnx, target="openvino", precision="int8", calibration=tmp_path, out=out)
    export_model(request, ImagePolicy())
    assert score(ModelSpec(path=str(out), precision="int8")) > predicted - 0.015


def test_an_image_of_one_stride_s_width_has_no_boxes_in_bf16_that_are_not_there(yolo_onnx: Path) -> None:
    """On a canvas of 32 by 640 OpenVINO found dozens of score 1."""
    if "bf16" not in precisions(ModelSpec(path=str(yolo_onnx), backend="openvino")):
        pytest.skip("the device does not compute in bf16")
    detector = open_detector(ModelSpec(path=str(yolo_onnx), backend="openvino", precision="bf16"))
    noise = np.random.default_rng(0).integers(0, 255, (640, 20, 3), dtype=np.uint8)
    boxes = detector.detect([Image(noise)], [DetectParameters(confidence=0.25)])
    detector.close()
    assert len(boxes.scores) == 0
