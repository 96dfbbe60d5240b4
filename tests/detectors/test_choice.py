"""Which backend runs a model, and what is said where none can."""

import logging
from dataclasses import replace

import pytest

from detectors.choice import check_decode_device, choose_backend, is_installed
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError

EVERYTHING = {"openvino", "onnxruntime", "ultralytics", "torchvision", "tensorrt"}


def choose(spec: ModelSpec, installed: set[str] = EVERYTHING, *, cuda: bool = False) -> str:
    return choose_backend(spec, installed.__contains__, lambda: cuda)


def test_images_are_not_to_be_decoded_on_a_gpu_that_is_not_there() -> None:
    with pytest.raises(
        ConfigurationError, match=r"images\.decode_on: there is no cuda:0, as no CUDA device is seen here; choose host"
    ):
        check_decode_device("cuda:0", lambda: False)
    check_decode_device("cuda:0", lambda: True)
    check_decode_device("host", lambda: False)


@pytest.mark.parametrize(
    ("path", "device", "installed", "cuda", "chosen"),
    [
        ("a.onnx", "auto", EVERYTHING, True, "tensorrt"),
        ("a.onnx", "auto", EVERYTHING, False, "openvino"),
        ("a.ONNX", "auto", EVERYTHING - {"tensorrt"}, True, "openvino"),
        ("a.onnx", "auto", EVERYTHING - {"tensorrt"} | {"onnxruntime-gpu"}, True, "onnxruntime"),
        ("a.onnx", "auto", EVERYTHING - {"tensorrt"} | {"onnxruntime-gpu"}, False, "openvino"),
        ("a.onnx", "CPU", EVERYTHING - {"tensorrt"} | {"onnxruntime-gpu"}, True, "openvino"),
        ("a.xml", "auto", EVERYTHING - {"tensorrt"} | {"onnxruntime-gpu"}, True, "openvino"),
        ("a.onnx", "auto", {"onnxruntime"}, False, "onnxruntime"),
        ("a.onnx", "cuda:1", EVERYTHING, True, "tensorrt"),
        ("a.onnx", "cuda:1", {"openvino", "onnxruntime"}, True, "onnxruntime"),
        ("a.onnx", "CPU", EVERYTHING, True, "openvino"),
        ("a.onnx", "GPU.1", EVERYTHING, True, "openvino"),
        ("a.xml", "auto", EVERYTHING, True, "openvino"),
        ("a.pt", "auto", EVERYTHING, True, "ultralytics"),
        ("a.pth", "cpu", EVERYTHING, False, "torchvision"),
        ("a.engine", "auto", EVERYTHING, True, "tensorrt"),
    ],
)
def test_auto_takes_the_fastest_that_can(path: str, device: str, installed: set[str], cuda: bool, chosen: str) -> None:
    assert choose(ModelSpec(path=path, device=device), installed, cuda=cuda) == chosen


@pytest.mark.parametrize(
    ("path", "backend"),
    [
        ("a.onnx", "openvino"),
        ("a.onnx", "onnxruntime"),
        ("a.onnx", "tensorrt"),
        ("a.xml", "openvino"),
        ("a.engine", "tensorrt"),
    ],
)
def test_a_wish_is_kept_to(path: str, backend: str) -> None:
    assert choose(ModelSpec(path=path, backend=backend)) == backend


@pytest.mark.parametrize(
    ("change", "installed", "message"),
    [
        ({"path": "a.tflite"}, EVERYTHING, r"no backend for the model 'a.tflite'; known are \.engine, \.onnx"),
        ({"backend": "keras"}, EVERYTHING, "backend keras is unknown; choose one of auto, tensorrt, openvino"),
        (
            {"backend": "ultralytics"},
            EVERYTHING,
            r"reads \.pt, not \.onnx, .* tensorrt, openvino, onnxruntime; .*export",
        ),
        ({"backend": "onnxruntime"}, set(), r"pip install 'sightstream\[onnxruntime\]'"),
        ({"backend": "openvino"}, set(), "pip install openvino"),
        ({"backend": "openvino", "device": "cuda:0"}, EVERYTHING, "openvino has no device cuda:0; its devices are"),
        ({"path": "a.pt"}, set(), r"pip install 'sightstream\[ultralytics\]'"),
        ({"path": "a.pth"}, set(), r"pip install 'sightstream\[torch\]'"),
        ({"path": "a.engine"}, set(), r"pip install 'sightstream\[tensorrt\]'"),
        ({"path": "a.engine"}, EVERYTHING, "tensorrt sees no CUDA device"),
        ({"device": "TPU"}, EVERYTHING, "openvino does not drive TPU; onnxruntime does not drive TPU"),
    ],
)
def test_what_cannot_be_says_what_to_do(change: dict[str, str], installed: set[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        choose(replace(ModelSpec(path="a.onnx"), **change), installed)  # type: ignore[arg-type]


def test_a_package_and_a_distribution_are_both_known_by_their_name() -> None:
    assert is_installed("cv2")
    assert is_installed("opencv-python-headless") or is_installed("opencv-python")
    assert not is_installed("no-such-package")


def test_auto_says_what_it_chose_and_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "detectors.choice"):
        choose(ModelSpec(path="a.onnx"), {"onnxruntime"})
    (message,) = caplog.messages
    assert message.startswith("backend auto: onnxruntime, as it reads .onnx; tensorrt is not installed")
    assert "openvino is not installed" in message
