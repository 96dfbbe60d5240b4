"""Opening a model by its description."""

import hashlib
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from detectors.base import Image
from detectors.fake import FakeDetector, PoisonedError
from detectors.openvino import precisions
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters
from tests.support.data import ROOT
from tests.support.images import POISON, photograph
from tests.support.models import write_tiny_yolo

FAKE = ModelSpec(path="fake")
LIBRARIES = {"torch", "torchvision", "ultralytics", "openvino", "onnxruntime", "tensorrt"}


def test_a_digest_pins_the_file(tmp_path: Path) -> None:
    path = write_tiny_yolo(tmp_path / "tiny.onnx")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for given in (digest, f"sha256:{digest}", digest.upper()):
        spec = ModelSpec(path=str(path), digest=given, precision="f32")
        assert open_detector(spec).model.digest == f"sha256:{digest}"
    with pytest.raises(ConfigurationError, match="refused"):
        open_detector(ModelSpec(path=str(path), digest="0" * 64))


def test_the_precision_is_measured_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = ModelSpec(path=str(write_tiny_yolo(tmp_path / "tiny.onnx")), backend="openvino", device="CPU")
    with caplog.at_level(logging.INFO, "detectors.precision"):
        first, second = (open_detector(spec, tmp_path / "engine").model for _ in range(2))
    assert first.precision == second.precision
    if len(precisions(spec)) > 1:
        assert [message.partition(", ")[2][:11] for message in caplog.messages] == ["the fastest", "as measured"]


def test_several_devices_are_opened_one_by_one_and_given_back_together(tmp_path: Path) -> None:
    path = write_tiny_yolo(tmp_path / "tiny.onnx")
    fleet = open_detector(ModelSpec(path=str(path), device="CPU, CPU", precision="f32"))
    one = open_detector(ModelSpec(path=str(path), device="CPU", precision="f32"))
    assert fleet.concurrency == 2 * one.concurrency
    images = [Image(np.asarray(photograph(seed, 200, 120))) for seed in range(5)]
    low = [DetectParameters(confidence=0.01)] * 5
    np.testing.assert_array_equal(fleet.detect(images, low).xyxy, one.detect(images, low).xyxy)
    fleet.close()


@pytest.mark.parametrize("device", ["CPU,TPU", "CPU,", ","])
def test_one_device_of_several_that_is_not_there_is_a_matter_of_configuration(tmp_path: Path, device: str) -> None:
    path = write_tiny_yolo(tmp_path / "tiny.onnx")
    with pytest.raises(ConfigurationError):
        open_detector(ModelSpec(path=str(path), device=device, precision="f32"))


@pytest.mark.parametrize("path", ["none.onnx", "none.pt", ".", "model.bin", "", "model"])
def test_a_model_that_is_not_there_or_has_no_backend_is_a_matter_of_configuration(path: str) -> None:
    with pytest.raises(ConfigurationError):
        open_detector(ModelSpec(path=path))


def test_the_registry_imports_no_inference_library() -> None:
    check = (
        "import sys, detectors.registry; from detectors.spec import ModelSpec; detectors.registry.open_detector(ModelSpec(path='noop'));"
        f"loaded = {LIBRARIES} & set(sys.modules); assert not loaded, loaded"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_one_backend_does_not_bring_another(tmp_path: Path) -> None:
    path = write_tiny_yolo(tmp_path / "tiny.onnx")
    for backend, others in (("onnxruntime", ["openvino", "torch"]), ("openvino", ["onnxruntime", "torch"])):
        check = (
            "import sys; from detectors.registry import open_detector; from detectors.spec import ModelSpec;"
            f"open_detector(ModelSpec(path={str(path)!r}, backend={backend!r}));"
            f"loaded = {set(others)} & set(sys.modules); assert not loaded, loaded"
        )
        done = subprocess.run(
            [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr


def test_settings_can_hold_policies_cheaply() -> None:
    check = (
        "import sys, detectors.policy, detectors.spec;"
        "loaded = {'numpy', 'aiohttp', 'cv2', 'PIL', 'obstore', 'prometheus_client'} & set(sys.modules); assert not loaded, loaded"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_calls_are_timed_and_their_batches_counted() -> None:
    def samples() -> tuple[float, float]:
        labels = {"model": "counted"}
        calls = REGISTRY.get_sample_value("sightstream_inference_duration_seconds_count", labels) or 0.0
        return calls, REGISTRY.get_sample_value("sightstream_inference_batch_size_sum") or 0.0

    detector = open_detector(ModelSpec(path="noop", name="counted"))
    calls, images = samples()
    detector.detect([Image(np.zeros((2, 2, 3), np.uint8))] * 5, [DetectParameters()] * 5)
    assert samples() == (calls + 1, images + 5)
    detector.close()


def test_the_fake_raises_on_a_poisoned_image_and_on_no_other() -> None:
    detector = open_detector(FAKE)
    good, poisoned = (Image(np.array(photograph())) for _ in range(2))
    poisoned.pixels[0, 0] = POISON
    with pytest.raises(PoisonedError):
        detector.detect([good, poisoned], [DetectParameters()] * 2)
    assert len(detector.detect([good], [DetectParameters()])) == 1


def test_the_fake_takes_as_long_as_a_test_wants() -> None:
    batches: list[int] = []
    FakeDetector(FAKE, batches.append).detect([Image(np.zeros((2, 2, 3), np.uint8))] * 3, [DetectParameters()] * 3)
    assert batches == [3]


def test_the_fake_finds_the_same_again() -> None:
    image = Image(np.array(photograph(5)))
    first, second = (open_detector(FAKE).detect([image], [DetectParameters()]) for _ in range(2))
    np.testing.assert_array_equal(first.xyxy, second.xyxy)
    assert 1 <= int(first.offsets[-1]) <= 3
