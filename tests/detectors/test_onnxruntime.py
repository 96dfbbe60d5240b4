"""The ONNX Runtime backend: what it reads, what it refuses, and that a batch's company changes nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxconverter_common import float16

from detectors import onnxruntime
from detectors.base import Image
from detectors.export_onnx import write_half
from detectors.onnxruntime import CONCURRENCY, OnnxRuntimeDetector, load, precisions
from detectors.openvino import load as load_openvino
from detectors.processor import processor_name
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters
from tests.support.images import photograph
from tests.support.models import LABELS, quantise, write_tiny_yolo

ANYTHING = DetectParameters(confidence=0.01)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_yolo(tmp_path / "tiny.onnx")


def image(width: int = 200, height: int = 120, seed: int = 0) -> Image:
    return Image(np.asarray(photograph(seed, width, height)))


def mixed(count: int) -> list[Image]:
    """Images of several canvas shapes in no order."""
    return [image(*((200, 120), (120, 200), (64, 64))[seed % 3], seed) for seed in range(count)]


def test_what_the_file_says_of_itself_is_used(tiny: Path) -> None:
    detector = load(ModelSpec(path=str(tiny)))
    model = detector.model
    assert (model.labels, model.name, model.precision, model.canvas) == (LABELS, "tiny", "f32", (320, 320))
    assert model.backend == f"onnxruntime {ort.__version__}"
    assert detector.detect([image()], [ANYTHING]).offsets[-1] > 0
    detector.close()


def test_it_finds_what_openvino_finds(tiny: Path) -> None:
    images = mixed(7)
    ours, theirs = (
        opened(ModelSpec(path=str(tiny))).detect(images, [ANYTHING] * 7) for opened in (load, load_openvino)
    )
    np.testing.assert_array_equal(ours.offsets, theirs.offsets)
    np.testing.assert_array_equal(ours.class_ids, theirs.class_ids)
    np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=0.05)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)


def test_batches_are_of_few_sizes_and_of_one_shape(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = load(ModelSpec(path=str(tiny)))
    shapes: list[tuple[int, ...]] = []
    session = detector._session

    class Watched:
        def run(self, outputs: Any, feeds: dict[str, Any]) -> Any:
            shapes.extend(planes.shape for planes in feeds.values())
            return session.run(outputs, feeds)

    monkeypatch.setattr(detector, "_session", Watched())
    for count in range(1, 12):
        assert len(detector.detect(mixed(count), [ANYTHING] * count)) == count
    assert {shape[0] for shape in shapes} == {1, 2}
    assert len({shape[2:] for shape in shapes}) == 3


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_input_is_kept_to(tmp_path: Path, batch: int) -> None:
    path = write_tiny_yolo(tmp_path / "fixed.onnx", (128, 192), batch=batch)
    # The tiny network reshapes to a batch of one; a fixed batch of several needs its own.
    if batch > 1:
        widen(path, batch)
    detector = load(ModelSpec(path=str(path), image_size=640))
    assert detector.model.canvas == (192, 128)
    images = mixed(6)
    together = detector.detect(images, [ANYTHING] * 6)
    for index, single in enumerate(images):
        rows = slice(int(together.offsets[index]), int(together.offsets[index + 1]))
        np.testing.assert_allclose(together.xyxy[rows], detector.detect([single], [ANYTHING]).xyxy, atol=0.01)


def widen(path: Path, batch: int) -> None:
    model = onnx.load(path)
    (shape,) = (tensor for tensor in model.graph.initializer if tensor.name == "shape")
    rows = onnx.numpy_helper.to_array(shape)[1]
    shape.CopyFrom(onnx.numpy_helper.from_array(np.array([batch, rows, -1], np.int64), "shape"))
    onnx.save(model, path)


def test_a_half_precision_model_is_fed_in_half_precision(tiny: Path) -> None:
    full = load(ModelSpec(path=str(tiny))).detect([image()], [ANYTHING])
    onnx.save(float16.convert_float_to_float16(onnx.load(tiny)), tiny)
    half = load(ModelSpec(path=str(tiny)))
    assert half.model.precision == "f16"
    boxes = half.detect([image()], [DetectParameters(confidence=0.02)])
    assert boxes.xyxy.dtype == np.float32
    assert boxes.scores[0] == pytest.approx(full.scores[0], abs=0.01)


def test_a_model_in_another_precision_says_so_and_may_be_asked_for_in_it(tiny: Path) -> None:
    half, quantised = (tiny.with_name(f"tiny.{name}.onnx") for name in ("fp16", "int8"))
    write_half(tiny, half)
    quantise(write_tiny_yolo(quantised))
    for path, precision in ((tiny, "f32"), (half, "f16"), (quantised, "int8")):
        for wanted in ("auto", precision):
            assert load(ModelSpec(path=str(path), precision=wanted)).model.precision == precision


def test_several_devices_run_a_half_precision_model(tiny: Path) -> None:
    onnx.save(float16.convert_float_to_float16(onnx.load(tiny)), tiny)
    fleet = open_detector(ModelSpec(path=str(tiny), backend="onnxruntime", device="cpu,cpu"))
    assert (fleet.model.precision, fleet.concurrency) == ("f16", 2 * CONCURRENCY)
    fleet.close()


def test_a_provider_that_does_not_start_is_an_error_unless_it_is_auto(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    # As the library does where a provider's own libraries are not there: it goes on without.
    monkeypatch.setattr(
        ort, "InferenceSession", lambda model, options, providers: real(model, options, ["CPUExecutionProvider"])
    )
    with pytest.raises(ConfigurationError, match="cannot start CUDAExecutionProvider for cuda:0; are the driver"):
        load(ModelSpec(path=str(tiny), device="cuda:0"))
    assert load(ModelSpec(path=str(tiny))).model.device == processor_name()


def test_no_more_threads_than_the_cores_that_a_quota_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "usable_cores", lambda: 1)
    assert onnxruntime._cores() == 1


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    with pytest.raises(ConfigurationError, match="not an ONNX model"):
        load(ModelSpec(path=str(path)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "GPU"}, "has no device GPU; choose auto, cpu or cuda:0"),
        ({"device": "cuda:x"}, "has no device cuda:x"),
        ({"precision": "bf16"}, "in its own precision, f32, not in bf16; choose auto, or the backend openvino"),
        ({"precision": "int8"}, "in its own precision, f32, not in int8; choose auto, or the backend openvino"),
    ],
)
def test_a_device_or_precision_that_is_not_there_is_refused(tiny: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(ModelSpec(path=str(tiny), **change))  # type: ignore[arg-type]


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this onnxruntime has CUDA")
def test_cuda_without_cuda_names_the_package(tiny: Path) -> None:
    with pytest.raises(ConfigurationError, match="pip install onnxruntime-gpu"):
        load(ModelSpec(path=str(tiny), device="cuda:0"))


def test_an_image_that_fails_leaves_the_detector_whole(tiny: Path) -> None:
    detector = load(ModelSpec(path=str(tiny)))
    good = mixed(5)
    expected = detector.detect(good, [ANYTHING] * 5)
    with pytest.raises(ValueError, match="expected uint8"):
        detector.detect([*good, Image(np.zeros((4, 4, 2), np.uint8))], [ANYTHING] * 6)
    np.testing.assert_array_equal(detector.detect(good, [ANYTHING] * 5).xyxy, expected.xyxy)


def test_there_is_one_precision_to_choose_from(tiny: Path) -> None:
    assert precisions(ModelSpec(path=str(tiny))) == ("f32",)
    assert isinstance(load(ModelSpec(path=str(tiny))), OnnxRuntimeDetector)
