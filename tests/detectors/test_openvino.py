"""The OpenVINO backend: what it reads, what it refuses, and that a failure leaves it whole."""

import hashlib
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors import openvino_graph
from detectors.base import Boxes, Image
from detectors.openvino import OpenVinoDetector, load, precisions
from detectors.openvino_graph import precision_settings, thread_settings
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters
from tests.support.data import ROOT
from tests.support.images import photograph
from tests.support.models import LABELS, quantise, write_ir, write_tiny_yolo

ANYTHING = DetectParameters(confidence=0.01)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_yolo(tmp_path / "tiny.onnx")


def image(width: int = 200, height: int = 120, seed: int = 0) -> Image:
    return Image(np.asarray(photograph(seed, width, height)))


def test_what_the_file_says_of_itself_is_used(tiny: Path) -> None:
    detector = load(ModelSpec(path=str(tiny)))
    assert detector.model.labels == LABELS
    assert detector.model.name == "tiny"
    assert detector.model.backend.startswith("openvino 20")
    assert detector.model.precision == "f32"
    assert detector._head.canvas == (320, 320)
    assert detector.detect([image()], [ANYTHING]).offsets[-1] > 0
    detector.close()


def test_an_image_alone_finds_what_it_finds_in_company(tiny: Path) -> None:
    detector = load(ModelSpec(path=str(tiny)))
    images = [image(seed=seed) for seed in range(4)]
    together = detector.detect(images, [ANYTHING] * 4)
    alone = Boxes.concatenate([detector.detect([one], [ANYTHING]) for one in images])
    np.testing.assert_allclose(together.xyxy, alone.xyxy, atol=1e-3)
    np.testing.assert_array_equal(together.offsets, alone.offsets)


def test_an_ir_is_read_with_its_weights_and_what_it_says_of_itself(tiny: Path) -> None:
    path = write_ir(tiny)
    detector = load(ModelSpec(path=str(path)))
    assert detector.model.labels == LABELS
    content = path.read_bytes() + path.with_suffix(".bin").read_bytes()
    assert detector.model.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    expected = load(ModelSpec(path=str(tiny))).detect([image()], [ANYTHING])
    np.testing.assert_array_equal(detector.detect([image()], [ANYTHING]).xyxy, expected.xyxy)


def test_an_ir_without_its_weights_is_refused(tiny: Path) -> None:
    path = write_ir(tiny)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ConfigurationError, match=r"cannot read the model .*\.bin"):
        load(ModelSpec(path=str(path)))


def test_a_fixed_batch_of_several_is_refused(tmp_path: Path) -> None:
    path = write_tiny_yolo(tmp_path / "four.onnx", (64, 64), batch=4)
    with pytest.raises(ConfigurationError, match="export it with a batch of 1"):
        load(ModelSpec(path=str(path)))


def test_auto_may_choose_among_what_the_device_computes_in(tiny: Path) -> None:
    offered = precisions(ModelSpec(path=str(tiny)))
    assert offered[0] == "f32"
    assert {load(ModelSpec(path=str(tiny), precision=name)).model.precision for name in offered} == set(offered)


def test_a_precision_that_the_device_has_not_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="does not compute in bf16, but in f32; choose auto"):
        precision_settings("bf16", ("f32",))


def test_another_size_may_be_asked_for(tiny: Path) -> None:
    assert load(ModelSpec(path=str(tiny), image_size=64))._head.canvas == (64, 64)


def test_a_fixed_input_is_kept_to(tmp_path: Path) -> None:
    path = write_tiny_yolo(tmp_path / "fixed.onnx", (128, 192))
    detector = load(ModelSpec(path=str(path), image_size=640))
    assert (detector._head.canvas, detector._head.stride) == ((192, 128), None)
    boxes = detector.detect([image(), image(50, 500)], [ANYTHING] * 2)
    assert len(boxes) == 2


def test_labels_may_lie_beside_the_model(tmp_path: Path) -> None:
    path = write_tiny_yolo(tmp_path / "bare.onnx", labels=None)
    (tmp_path / "bare.labels.txt").write_text("a\nb\nc\nd\n")
    assert load(ModelSpec(path=str(path))).model.labels == ("a", "b", "c", "d")


def test_a_model_without_labels_is_refused_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    path = write_tiny_yolo(tmp_path / "bare.onnx", labels=None)
    with pytest.raises(ConfigurationError, match=r"bare\.labels\.txt"):
        load(ModelSpec(path=str(path)))


def test_another_number_of_labels_than_the_head_has_is_refused(tmp_path: Path) -> None:
    path = write_tiny_yolo(tmp_path / "bare.onnx", labels=None)
    (tmp_path / "bare.labels.txt").write_text("a\nb\n")
    with pytest.raises(ConfigurationError, match="expected a YOLOv8 head"):
        load(ModelSpec(path=str(path)))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    with pytest.raises(
        ConfigurationError, match="not an ONNX model or IR that OpenVINO reads: Unable to read the model"
    ):
        load(ModelSpec(path=str(path)))


def test_a_model_that_is_quantised_already_runs_as_it_is(tiny: Path) -> None:
    quantise(tiny)
    spec = ModelSpec(path=str(tiny), precision="auto")
    (offered,) = precisions(spec)
    for wanted in ("auto", "f32", offered):
        assert load(replace(spec, precision=wanted)).model.precision == "int8"
    # A sibling is for a model that is not quantised, and this one is not to be mistaken for it.
    write_tiny_yolo(tiny.with_name("tiny.int8.onnx"))
    detector = load(replace(spec, precision=offered))
    assert detector.model.digest == f"sha256:{hashlib.sha256(tiny.read_bytes()).hexdigest()}"
    assert detector.model.origin == ""
    assert open_detector(spec).model.precision == "int8"
    assert open_detector(replace(spec, device="CPU,CPU")).model.precision == "int8"


def test_a_sibling_says_in_whose_place_it_runs(tiny: Path) -> None:
    with pytest.raises(ConfigurationError, match="no int8 sibling; make one: sightstream models export"):
        load(ModelSpec(path=str(tiny), precision="int8"))
    sibling = quantise(write_tiny_yolo(tiny.with_name("tiny.int8.onnx")))
    model = load(ModelSpec(path=str(tiny), precision="int8")).model
    digests = [f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in (sibling, tiny)]
    assert [model.digest, model.origin] == digests
    assert (model.name, model.precision) == ("tiny", "int8")
    assert load(ModelSpec(path=str(tiny))).model.origin == ""


def test_openvino_has_one_door() -> None:
    pattern = re.compile(r"^\s*(import|from) openvino\b|import_module\([\"']openvino\b", re.MULTILINE)
    found = [path.name for path in (ROOT / "detectors").glob("*.py") if pattern.search(path.read_text())]
    assert found == ["openvino_library.py"]


def test_openvino_reports_to_nobody(tiny: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    check = (
        "import sys, threading; from detectors import openvino, tensorrt; from detectors.spec import ModelSpec, read_model;"
        f"spec = ModelSpec(path={str(tiny)!r}); tensorrt._read_signature(read_model(spec)); openvino.load(spec);"
        "import detectors.export_openvino as export; export._import_nncf();"
        "assert 'openvino_telemetry' not in sys.modules; assert threading.active_count() == 1, threading.enumerate()"
    )
    done = subprocess.run(
        [sys.executable, "-c", check],
        cwd=ROOT,
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(home.iterdir())


def test_no_more_threads_than_the_cores_that_a_quota_leaves(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(openvino_graph, "usable_cores", lambda: 2)
    assert thread_settings("CPU") == {}
    monkeypatch.setattr(openvino_graph, "usable_cores", lambda: 1)
    assert thread_settings("GPU") == {}
    detector = load(ModelSpec(path=str(tiny), device="CPU"))
    assert detector._graphs[0].common.get_property("INFERENCE_NUM_THREADS") == 1


@pytest.mark.parametrize(
    ("change", "message"), [({"device": "TPU"}, "no device TPU"), ({"precision": "f8"}, "precision f8 is unknown")]
)
def test_a_device_or_precision_that_is_not_there_is_refused(tiny: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(ModelSpec(path=str(tiny), **change))  # type: ignore[arg-type]


def test_auto_says_what_it_chose_and_why(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "detectors.openvino"):
        load(ModelSpec(path=str(tiny)))
    assert any(message.startswith("device auto: ") and ", as " in message for message in caplog.messages)


def test_more_images_than_requests_come_back_in_order(tiny: Path) -> None:
    detector = load(ModelSpec(path=str(tiny)))
    images = [image(64 + 8 * index, 48, index) for index in range(30)]
    together = detector.detect(images, [ANYTHING] * 30)
    for index, single in enumerate(images):
        alone = detector.detect([single], [ANYTHING])
        rows = slice(int(together.offsets[index]), int(together.offsets[index + 1]))
        np.testing.assert_array_equal(together.xyxy[rows], alone.xyxy)


@pytest.mark.parametrize("position", [0, 3, 9])
def test_an_image_that_fails_leaves_the_detector_whole(tiny: Path, position: int) -> None:
    detector = load(ModelSpec(path=str(tiny)))
    good = [image(seed=seed) for seed in range(10)]
    expected = detector.detect(good, [ANYTHING] * 10)
    broken: NDArray[np.uint8] = np.zeros((4, 4, 2), np.uint8)
    for _ in range(detector.concurrency + 1):
        with pytest.raises(ValueError, match="expected uint8"):
            detector.detect([*good[:position], Image(broken), *good[position:]], [ANYTHING] * 11)
    np.testing.assert_array_equal(detector.detect(good, [ANYTHING] * 10).xyxy, expected.xyxy)


def test_a_failing_inference_reaches_the_caller(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = load(ModelSpec(path=str(tiny)))
    # A canvas that the network cannot take: smaller than one cell of its pooling.
    monkeypatch.setattr(detector, "_head", type(detector._head)(LABELS, (8, 8), None))
    with pytest.raises(RuntimeError):
        detector.detect([image()] * 5, [ANYTHING] * 5)
    monkeypatch.undo()
    assert len(detector.detect([image()] * 5, [ANYTHING] * 5)) == 5


def test_the_detector_is_what_load_returns(tiny: Path) -> None:
    assert isinstance(load(ModelSpec(path=str(tiny))), OpenVinoDetector)
