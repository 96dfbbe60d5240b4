"""TensorRT's flow without TensorRT: what is built for, kept, opened and run. What only a GPU can show is not shown here."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from detectors import openvino, tensorrt
from detectors.base import Image
from detectors.buckets import Buckets
from detectors.export_onnx import write_half
from detectors.spec import ModelSpec
from detectors.tensorrt_plan import EngineFile, Profile, Target, open_or_build
from detectors.tensorrt_runtime import Executor, build_plan
from detectors.yolo_onnx import Head, Signature
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters
from tests.support.images import photograph
from tests.support.models import LABELS, quantise, write_tiny_yolo
from tests.support.tensorrt import GPU_NAME, VERSION, Builder, pretend, stand_in

PROFILE = Profile((1, 3, 32, 32), (8, 3, 640, 640), (8, 3, 640, 640))
TARGET = Target("NVIDIA H100 80GB HBM3", "11.4.0.106", "sha256:ab", "f16", PROFILE)
SIGNATURE = Signature((None, 3, None, None), (None, 8, None), {"names": "{0: 'a'}", "stride": "32"})


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in for TensorRT, and the CPU in place of a GPU."""
    return pretend(monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_yolo(tmp_path / "tiny.onnx")


def pictures() -> list[Image]:
    sizes = [(320, 200), (200, 320), (96, 96), (640, 400), (2000, 1)]
    return [Image(np.asarray(photograph(seed, *size))) for seed, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("head", "least", "most", "sizes"),
    [
        (Head(LABELS, (640, 480), 32), (1, 3, 32, 32), (32, 3, 480, 640), (1, 2, 4, 8, 16, 32)),
        (Head(LABELS, (640, 480), None), (1, 3, 480, 640), (32, 3, 480, 640), (1, 2, 4, 8, 16, 32)),
        (Head(LABELS, (640, 480), None, 1), (1, 3, 480, 640), (1, 3, 480, 640), (1,)),
        (Head(LABELS, (64, 64), 32, 6), (6, 3, 32, 32), (6, 3, 64, 64), (6,)),
    ],
)
def test_a_profile_leaves_free_what_the_model_does(
    head: Head, least: tuple[int, ...], most: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    profile = Profile.of(head)
    assert (profile.least, profile.best, profile.most) == (least, most, most)
    assert profile.buckets == Buckets(sizes)


def test_an_engine_s_name_tells_everything_apart_that_it_depends_on() -> None:
    others = [
        replace(TARGET, gpu="NVIDIA L4"),
        replace(TARGET, tensorrt="10.14.1"),
        replace(TARGET, model="sha256:ac"),
        replace(TARGET, precision="f32"),
        replace(TARGET, profile=replace(PROFILE, least=(1, 3, 64, 64))),
    ]
    names = {target.file_name for target in (TARGET, *others)}
    assert len(names) == 6
    assert TARGET.file_name.startswith("NVIDIA-H100-80GB-HBM3-trt11.4.0.106-f16-")


def test_an_engine_file_comes_back_as_it_went() -> None:
    packed = EngineFile(TARGET, SIGNATURE, b"\n\x00plan\n").pack()
    read = EngineFile.unpack(packed)
    assert read is not None
    assert (read.target, read.signature, read.plan) == (TARGET, SIGNATURE, b"\n\x00plan\n")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "header"])
def test_a_damaged_engine_file_is_none(damage: str) -> None:
    packed = EngineFile(TARGET, SIGNATURE, b"plan" * 100).pack()
    damaged = {
        "cut": packed[:-1],
        "flipped": packed[:-50] + bytes([packed[-50] ^ 1]) + packed[-49:],
        "empty": b"",
        "foreign": b"ftrt plan of somebody else",
        "header": packed.replace(b'"gpu"', b'"cpu"'),
    }
    assert EngineFile.unpack(damaged[damage]) is None


class Workshop:
    """Builds engines that open; counts them."""

    def __init__(self) -> None:
        self.built = 0

    def build(self) -> EngineFile:
        self.built += 1
        return EngineFile(TARGET, SIGNATURE, b"good %d" % self.built)

    def open(self, plan: bytes) -> bytes | None:
        return plan if plan.startswith(b"good") else None


def test_an_engine_is_built_once_and_kept(tmp_path: Path) -> None:
    shop = Workshop()
    for _ in range(3):
        assert open_or_build(tmp_path / "engines", TARGET, shop.open, shop.build) == b"good 1"
    assert shop.built == 1
    other = replace(TARGET, gpu="another")
    assert open_or_build(tmp_path / "engines", other, shop.open, shop.build) == b"good 2"


@pytest.mark.parametrize("content", [b"", b"junk", "stale", "unusable"])
def test_a_broken_or_stale_engine_is_built_anew(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / TARGET.file_name
    if content == "stale":
        content = EngineFile(replace(TARGET, tensorrt="10.0"), SIGNATURE, b"good 0").pack()
    elif content == "unusable":
        content = EngineFile(TARGET, SIGNATURE, b"TensorRT refuses this").pack()
    assert isinstance(content, bytes)
    path.write_bytes(content)
    shop = Workshop()
    assert open_or_build(tmp_path, TARGET, shop.open, shop.build) == b"good 1"
    assert open_or_build(tmp_path, TARGET, shop.open, shop.build) == b"good 1"
    assert shop.built == 1


def test_where_nothing_can_be_kept_engines_are_built_all_the_same(tmp_path: Path) -> None:
    shop = Workshop()
    (tmp_path / "file").write_bytes(b"")
    assert open_or_build(None, TARGET, shop.open, shop.build) == b"good 1"
    assert open_or_build(tmp_path / "file" / "engines", TARGET, shop.open, shop.build) == b"good 2"


def test_a_fresh_engine_that_does_not_open_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="has just built"):
        open_or_build(tmp_path, TARGET, lambda _: None, Workshop().build)
    assert not list(tmp_path.glob("*.engine"))


def test_a_model_is_built_once_and_finds_what_openvino_finds(gpu: Any, model: Path, tmp_path: Path) -> None:
    spec = ModelSpec(path=str(model), image_size=320, confidence=0.3, name="tested", precision="f32")
    detector = tensorrt.load(spec, tmp_path / "cache")
    images = pictures()
    parameters = [DetectParameters(confidence=0.2 + 0.05 * row) for row in range(len(images))]
    boxes = detector.detect(images, parameters)
    expected = openvino.load(spec).detect(images, parameters)
    assert boxes.offsets[-1] > 20
    assert_array_equal(boxes.offsets, expected.offsets)
    assert_array_equal(boxes.class_ids, expected.class_ids)
    assert_allclose(boxes.xyxy, expected.xyxy, atol=0.01)
    assert detector.max_batch == 32
    said = detector.model
    assert (said.backend, said.precision, said.device) == (f"tensorrt {VERSION}", "f32", GPU_NAME)
    assert (said.name, said.labels, said.canvas) == ("tested", LABELS, (320, 320))
    detector.close()
    assert tensorrt.load(spec, tmp_path / "cache").model == said
    assert Builder.built == 1
    tensorrt.load(replace(spec, image_size=256), tmp_path / "cache")
    assert Builder.built == 2


def test_auto_builds_both_precisions_once_and_remembers_its_choice(gpu: Any, model: Path, tmp_path: Path) -> None:
    spec = ModelSpec(path=str(model), image_size=128, confidence=0.3)
    chosen = tensorrt.load(spec, tmp_path).model.precision
    assert chosen in {"f32", "f16"}
    assert Builder.built == 2
    assert tensorrt.load(spec, tmp_path).model.precision == chosen
    assert Builder.built == 2


def test_a_half_precision_model_is_built_once_and_says_so(gpu: Any, model: Path, tmp_path: Path) -> None:
    half = tmp_path / "tiny.fp16.onnx"
    write_half(model, half)
    for precision in ("auto", "f32", "f16"):
        spec = ModelSpec(path=str(half), image_size=128, precision=precision)
        assert tensorrt.load(spec, tmp_path / "cache").model.precision == "f16"
    assert Builder.built == 1


def test_a_quantised_model_is_built_once_and_says_so(gpu: Any, model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"tiny\.onnx is not quantised; TensorRT engines of it are in f32, f16"
    ):
        tensorrt.load(ModelSpec(path=str(model), image_size=128, precision="int8"))
    quantise(model)
    for precision in ("auto", "f32", "f16", "int8"):
        spec = ModelSpec(path=str(model), image_size=128, precision=precision)
        assert tensorrt.load(spec, tmp_path / "cache").model.precision == "int8"
    assert Builder.built == 1


def test_a_model_of_a_fixed_batch_is_padded_to_it(gpu: Any, tmp_path: Path) -> None:
    path = write_tiny_yolo(tmp_path / "fixed.onnx", (96, 128), batch=4)
    detector = tensorrt.load(ModelSpec(path=str(path), confidence=0.3, precision="f32"))
    images = pictures()
    together = detector.detect(images, [DetectParameters()] * len(images))
    assert detector.max_batch == 4
    first = detector.detect(images[:1], [DetectParameters()])
    assert_allclose(together.xyxy[: together.offsets[1]], first.xyxy)


def test_an_exported_engine_opens_where_it_was_made_and_nowhere_else(gpu: Any, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.engine"
    tensorrt.write_engine(model, path, half=False)
    spec = ModelSpec(path=str(path), confidence=0.3)
    said = tensorrt.load(spec).model
    assert (said.labels, said.precision) == (LABELS, "f32"), "and auto is what was built"
    with pytest.raises(ConfigurationError, match="is for images of 320 pixels, not 640"):
        tensorrt.load(replace(spec, image_size=640))
    with pytest.raises(ConfigurationError, match="computes in f32, not in f16"):
        tensorrt.load(replace(spec, precision="f16"))
    gpu.__version__ = "11.5"
    with pytest.raises(
        ConfigurationError, match=r"is for TensorRT 11.4.0.106 on NVIDIA Test 100, and this is TensorRT 11.5"
    ):
        tensorrt.load(spec)
    path.write_bytes(b"an engine of another tool")
    with pytest.raises(ConfigurationError, match="no engine that `sightstream models export` wrote"):
        tensorrt.load(spec)


def test_f32_has_no_tf32_and_a_shape_outside_the_profile_is_refused(model: Path) -> None:
    trt = stand_in()
    profile = Profile((1, 3, 32, 32), (2, 3, 64, 64), (2, 3, 64, 64))
    plan = build_plan(trt, model.read_bytes(), profile, tf32=False)
    assert b'"tf32": false' in plan
    assert b'"tf32": true' in build_plan(trt, model.read_bytes(), profile, tf32=True)
    executor = Executor.open(trt, plan, lambda: 0)
    assert executor is not None
    assert executor(torch.zeros(2, 3, 64, 32)).shape == (2, 8, 2)
    with pytest.raises(ValueError, match=r"no images of shape \(3, 3, 64, 64\)"):
        executor(torch.zeros(3, 3, 64, 64))
    assert Executor.open(trt, plan.replace(b"11.4.0", b"10.4.0"), lambda: 0) is None


def test_a_graph_that_does_not_parse_is_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigurationError, match="cannot read the model: the graph does not parse"):
        build_plan(stand_in(), b"no graph", PROFILE, tf32=True)


def test_without_the_extra_or_a_gpu_the_message_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(path=str(model), backend="tensorrt")
    with pytest.raises(ConfigurationError, match="not in bf16"):
        tensorrt.load(replace(spec, precision="bf16"))
    if importlib.util.find_spec("tensorrt") is None:
        with pytest.raises(ConfigurationError, match=r"pip install 'sightstream\[tensorrt\]'"):
            tensorrt.load(spec)
    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name: stand_in() if name == "tensorrt" else real(name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="is the NVIDIA driver installed"):
        tensorrt.load(spec)
