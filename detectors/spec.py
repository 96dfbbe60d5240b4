"""Which model to open and how, and the model's file; imports nothing heavy, so that settings can hold it."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from schemas.errors import ConfigurationError

SHIPPED = "codes"
"""The name of the model that comes with the package: a detector of machine-readable codes."""
# Of models that do not say their own.
_MODELS = Path(__file__).with_name("models")


@dataclass(frozen=True, slots=True)
class Advice:
    """How to read a model's output, unless somebody says otherwise.

    `confidence`: the least score of a detection. `iou`: of two boxes of a class that overlap more, the better one is kept.
    """

    confidence: float = 0.25
    iou: float = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model to open.

    `path`: a model file (`.onnx`, `.xml` with its `.bin`, `.pt`, `.pth`, `.engine`), or a name: `codes`, the model that comes with
    the package, or a stand-in for one (`fake`, `noop`). `name` defaults to the file's stem. `digest` (`sha256:` + hex), if given, is
    what the file must have. `backend`: `auto`, or `openvino`, `onnxruntime`, `ultralytics`, `torchvision`, `tensorrt`. `device`:
    `auto` or the backend's own name (`CPU`, `GPU`, `cuda:0`); several, with commas between, are used side by side. `precision`:
    `f32`, the same boxes on every machine; `bf16`, `f16`; `int8`, the sibling `NAME.int8.xml`; or `auto`, the fastest of these that
    finds what `f32` finds, by measurement when a model is first opened on a machine. `compiled`: torch models go through
    `torch.compile`, which takes a minute at load. `image_size`: longer side of the canvas in pixels; None takes the model's own.
    `confidence`, `iou` and `max_detections` hold for requests that do not say; None is what the model's file advises, else `Advice`.
    """

    path: str = SHIPPED
    name: str = ""
    version: str = ""
    digest: str | None = None
    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    compiled: bool = False
    image_size: int | None = None
    confidence: float | None = None
    iou: float | None = None
    max_detections: int = 300

    @property
    def model_name(self) -> str:
        """`name`, else the stem of the file's name."""
        return self.name or Path(self.path).stem

    @property
    def file(self) -> Path:
        """Where `path` leads: to the package's own file where it is the name of the model that comes with it."""
        return _MODELS / f"{SHIPPED}.onnx" if self.path == SHIPPED else Path(self.path)

    def advise(self, model: Advice | None = None) -> Advice:
        """What holds for requests that do not say: `confidence` and `iou`, where they are None what the model advises."""
        own = model or Advice()
        return Advice(
            own.confidence if self.confidence is None else self.confidence, own.iou if self.iou is None else self.iou
        )

    def taking(self, model: Advice) -> Self:
        """This, with the model's advice where it says nothing itself."""
        advice = self.advise(model)
        return replace(self, confidence=advice.confidence, iou=advice.iou)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that is there and is what was asked for.

    `weights`: content of the `.bin` beside an OpenVINO `.xml`, else empty. `digest`: `sha256:` + hex of `content` and then `weights`.
    """

    path: Path
    digest: str
    content: bytes
    weights: bytes = b""


def read_model(spec: ModelSpec) -> ModelFile:
    """Read the model of `spec`. Raises ConfigurationError if it is missing, unreadable or has another digest."""
    path = spec.file
    content = _read_bytes(path)
    weights = _read_bytes(path.with_suffix(".bin")) if path.suffix.lower() == ".xml" else b""
    digest = f"sha256:{hashlib.sha256(content + weights).hexdigest()}"
    if spec.digest is not None and spec.digest.lower().removeprefix("sha256:") != digest.removeprefix("sha256:"):
        raise ConfigurationError(f"the model {path} has digest {digest}, but {spec.digest} is asked for: refused")
    return ModelFile(path, digest, content, weights)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read the model {path}: {error.strerror}") from error


def read_labels_file(model: Path) -> tuple[str, ...] | None:
    """Labels from `NAME.labels.txt` beside the model, one a line in the order of class ids; None if there is no such file."""
    path = model.with_suffix(".labels.txt")
    if not path.is_file():
        return None
    return tuple(path.read_text(encoding="utf-8").splitlines())
