"""The optional backend: how Ultralytics is imported, and what is said where it is not there."""

import builtins
import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors.base import Image
from detectors.boxes import Letterbox, Thresholds, read_yolo
from detectors.buckets import Buckets
from detectors.spec import ModelSpec
from detectors.ultralytics import import_confined, load, place, precisions
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters
from tests.support.data import ROOT
from tests.support.images import photograph

_IMPORT = """
import io, os, sys
import PIL.Image
before = PIL.Image.open
import detectors.ultralytics
assert "torch" not in sys.modules, "torch came with the module"
ultralytics = detectors.ultralytics.import_confined()
assert PIL.Image.open is before, "PIL.Image.open stayed patched"
assert ultralytics.utils.AUTOINSTALL is False
assert ultralytics.utils.SAFE_LOAD is True
assert ultralytics.__file__ != detectors.ultralytics.__file__
try:
    PIL.Image.open(io.BytesIO(b"not an image"))
except PIL.UnidentifiedImageError:
    print("confined")
"""


def test_ultralytics_is_confined_when_imported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _IMPORT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "confined"


@pytest.mark.parametrize("missing", ["ultralytics", "torch"])
def test_without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name in {"ultralytics", missing}:
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    path = tmp_path / "model.pt"
    path.write_bytes(b"anything")
    backend = real("detectors.ultralytics")
    with pytest.raises(ConfigurationError, match=r"pip install 'sightstream\[ultralytics\]'"):
        backend.load(ModelSpec(path=str(path)))


@pytest.mark.model
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"not a checkpoint")
    backend = importlib.import_module("detectors.ultralytics")
    with pytest.raises(
        ConfigurationError, match=r"model\.pt is not a checkpoint that Ultralytics loads safely$"
    ) as refused:
        backend.load(ModelSpec(path=str(path)))
    assert refused.value.__cause__ is not None


@pytest.mark.model
def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    """A pickle may call anything; the allow-list lets only the classes of networks through."""
    torch = importlib.import_module("torch")
    path, witness = tmp_path / "evil.pt", tmp_path / "witness"
    torch.save({"model": Evil(str(witness))}, path)
    backend = importlib.import_module("detectors.ultralytics")
    with pytest.raises(ConfigurationError):
        backend.load(ModelSpec(path=str(path)))
    assert not witness.exists()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = importlib.import_module("tests.support.torch_models")
    path: Path = models.write_tiny_ultralytics(tmp_path_factory.mktemp("ultralytics") / "tiny.pt")
    return path


def spec_of(checkpoint: Path, **changes: Any) -> ModelSpec:
    return replace(ModelSpec(path=str(checkpoint), device="cpu", precision="f32", image_size=160), **changes)


def test_our_decoding_finds_what_ultralytics_own_finds(checkpoint: Path) -> None:
    """The head decodes by itself once it is told that it does not train; the candidates that it gives are read as an export's."""
    detector = load(spec_of(checkpoint))
    image = Image(np.asarray(photograph(3, 200, 120)))
    boxes = detector.detect([image], [DetectParameters(confidence=0.2)])
    torch = importlib.import_module("torch")
    network = import_confined().YOLO(str(checkpoint)).model.fuse(verbose=False).eval()
    letterbox = Letterbox.fit((200, 120), (160, 160), 32)
    planes = torch.from_numpy(letterbox.apply(image.pixels)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        own = network(planes)[0][0].numpy()
    expected = read_yolo(own, Thresholds(0.2, 0.7, 300), letterbox)
    assert len(expected.scores) > 5
    np.testing.assert_array_equal(boxes.class_ids, expected.class_ids)
    np.testing.assert_allclose(boxes.scores, expected.scores, atol=1e-3)
    np.testing.assert_allclose(boxes.xyxy, expected.xyxy, atol=0.02)


def test_bf16_keeps_coordinates_fine(checkpoint: Path) -> None:
    """Decoded in bf16 they would have steps of a pixel at 160 and of four at 640."""
    coarse = load(spec_of(checkpoint, precision="bf16"))
    assert coarse.model.precision == "bf16"
    images = [Image(np.asarray(photograph(seed, 160, 160))) for seed in range(3)]
    xyxy = coarse.detect(images, [DetectParameters(confidence=0.1)] * 3).xyxy
    inner = xyxy[(xyxy > 0) & (xyxy < 160)]
    assert len(inner) > 5
    assert (inner != np.round(inner * 2) / 2).mean() > 0.5


def test_a_compiled_checkpoint_finds_the_same_and_says_so(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way of loading but for the code generator, which takes a minute; of the batch sizes, each compiled anew, only two."""
    plain = load(spec_of(checkpoint))
    monkeypatch.setattr("detectors.torch_engine.Buckets", lambda: Buckets((1, 2)))
    compiled = load(spec_of(checkpoint, compiled=True), compiler="aot_eager")
    assert compiled.model.backend.endswith(", compiled")
    assert compiled.max_batch == 2
    images = [Image(np.asarray(photograph(seed, 160, 160))) for seed in range(3)]
    wanted = [DetectParameters(confidence=0.2)] * 3
    found, expected = (detector.detect(images, wanted) for detector in (compiled, plain))
    assert expected.offsets[-1] > 5
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=0.02)


def test_what_auto_may_choose_from_is_what_the_cpu_computes_in(checkpoint: Path) -> None:
    assert precisions(spec_of(checkpoint))[0] == "f32"
    assert set(precisions(spec_of(checkpoint))) <= {"f32", "bf16"}
    assert place(spec_of(checkpoint)).startswith("torch ")


def test_an_image_size_that_the_strides_do_not_divide_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigurationError, match="image_size 170 is not a multiple of the model's stride, 32"):
        load(spec_of(checkpoint, image_size=170))


class Evil:
    """An object whose unpickling writes a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.open, (self._path, "w")
