"""The model that comes with the package, and the threshold that a model's file says of itself."""

import importlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from detectors.base import Detector, Image
from detectors.cache import CachedDetector, MemoryStore
from detectors.curve import LatencyCurve, PacedDetector
from detectors.registry import open_detector
from detectors.spec import SHIPPED, Advice, ModelSpec, read_model
from infra.settings import load
from schemas.records import DetectParameters
from tests.support.images import photograph
from tests.support.models import write_tiny_yolo

CLASSES = ("qr", "datamatrix", "barcode", "marker")
BACKENDS = ("openvino", "onnxruntime")


def advising(path: Path, confidence: str, iou: str = "") -> Path:
    """The tiny network, whose file advises thresholds."""
    model = onnx.load(write_tiny_yolo(path))
    said = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, said | {"confidence": confidence, "iou": iou})
    onnx.save(model, path)
    return path


def opened(backend: str, path: Path, confidence: float | None = None) -> Detector:
    return open_detector(ModelSpec(path=str(path), backend=backend, precision="f32", confidence=confidence))


def scores(
    detector: Detector, wanted: DetectParameters | None = None
) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    images = [Image(np.asarray(photograph(seed, 320, 320)), sha256=str(seed)) for seed in range(3)]
    found: np.ndarray[tuple[int], np.dtype[np.float32]] = np.sort(
        detector.detect(images, [wanted or DetectParameters()] * 3).scores
    )
    return found


def test_it_is_the_default_and_goes_by_its_name() -> None:
    spec = load(environ={}).model
    assert (spec.path, spec.model_name) == (SHIPPED, "codes")
    file = read_model(spec)
    assert file.path.is_file()
    assert len(file.content) <= 4_000_000
    assert file.path.with_suffix(".md").read_text(encoding="utf-8").startswith("# codes")


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_opens_on_each_backend_that_reads_onnx(backend: str) -> None:
    detector = open_detector(ModelSpec(backend=backend, precision="f32"))
    assert detector.model.labels == CLASSES
    grey = Image(np.full((90, 200, 3), 114, np.uint8))
    assert len(detector.detect([grey] * 3, [DetectParameters()] * 3)) == 3
    detector.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_that_advises_a_threshold_is_heard_unless_somebody_says_another(tmp_path: Path, backend: str) -> None:
    path = advising(tmp_path / "tiny.onnx", "0.9")
    every = scores(opened(backend, write_tiny_yolo(tmp_path / "plain.onnx")), DetectParameters(confidence=0.0))
    assert (every < 0.9).any()
    assert (every > 0.95).any()
    for given, expected in ((None, 0.9), (0.95, 0.95)):
        detector = opened(backend, path, given)
        assert detector.model.advice == Advice(expected, 0.7)
        np.testing.assert_allclose(scores(detector), every[every > expected], atol=1e-6)
        detector.close()
    detector = opened(backend, path)
    np.testing.assert_allclose(scores(detector, DetectParameters(confidence=0.0)), every, atol=1e-6)
    detector.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_that_advises_how_far_boxes_may_overlap_is_heard_too(tmp_path: Path, backend: str) -> None:
    detector = opened(backend, advising(tmp_path / "tiny.onnx", "0.1", "0.0"))
    assert detector.model.advice == Advice(0.1, 0.0)
    own, asked, loose = (len(scores(detector, DetectParameters(iou=iou))) for iou in (None, 0.0, 1.0))
    assert own == asked < loose
    detector.close()


@pytest.mark.parametrize("nonsense", ["", "often", "7", "nan"])
def test_a_threshold_that_is_none_is_as_if_there_were_none(tmp_path: Path, nonsense: str) -> None:
    detector = opened("openvino", advising(tmp_path / "tiny.onnx", nonsense))
    assert detector.model.advice.confidence == 0.25
    detector.close()


def test_the_models_own_threshold_and_the_same_one_asked_for_are_one_entry_of_the_cache(tmp_path: Path) -> None:
    spec = ModelSpec(path=str(advising(tmp_path / "tiny.onnx", "0.9")), backend="openvino", precision="f32")
    inner = open_detector(spec)
    paced = PacedDetector(inner, LatencyCurve(((1, 1.0),)))
    cached = CachedDetector(paced, spec, [MemoryStore(1_000_000)])
    own, asked, low = (
        scores(cached, wanted)
        for wanted in (DetectParameters(), DetectParameters(confidence=0.9), DetectParameters(confidence=0.25))
    )
    np.testing.assert_array_equal(own, asked)
    assert len(low) > len(own)
    cached.close()


def test_an_8_bit_sibling_of_it_would_lie_beside_it() -> None:
    siblings = importlib.import_module("detectors.siblings")
    assert siblings.trace(ModelSpec()) == "no sibling"
