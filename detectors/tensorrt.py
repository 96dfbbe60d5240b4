"""ONNX models with a YOLO head on TensorRT 10 and 11; the engine is built when a model is first opened on a GPU, and kept.

Networks are strongly typed (in TensorRT 11 there are no others): they compute in the types that the graph says, so `f16` is a converted
graph. `f32` is without TF32, which would round to ten bits of mantissa. Images are letterboxed and thresholds applied by torch.
"""

import importlib
import importlib.util
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectors.base import Detector, ModelInfo
from detectors.precision import open_fastest
from detectors.spec import ModelFile, ModelSpec, read_model
from detectors.tensorrt_plan import EngineFile, Profile, Target, open_or_build
from detectors.torch_environment import calm_threads
from detectors.yolo_onnx import PRECISION_KEY, Head, Signature, read_head
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from detectors.tensorrt_runtime import Executor
    from detectors.torch_device import Placement

_PRECISIONS = ("f32", "f16")
_QUANTISED = "int8"


def load(spec: ModelSpec, cache_dir: Path | None = None) -> Detector:
    """Open and warm a model: an ONNX file, whose engine is built unless `cache_dir` has it, or an `.engine` that `write_engine` made.

    `auto` precision is measured, for which both engines are built. Raises ConfigurationError without the extra or a GPU, or where the file
    or the precision is not fit for it.
    """
    if spec.precision == "auto":
        return open_fastest(spec, _Cached(cache_dir), cache_dir)
    file = read_model(spec)
    trt, placement = _prepare(spec)
    # Only now: they bring torch.
    from detectors.torch_engine import Shapes, TorchEngine  # noqa: PLC0415
    from detectors.torch_heads import DenseHead  # noqa: PLC0415

    head, target, executor = _open_file(file, spec, trt, placement) or _open_graph(
        file, spec, trt, placement, cache_dir
    )
    engine = TorchEngine(
        spec.taking(head.advice),
        ModelInfo(
            name=spec.model_name,
            version=spec.version,
            digest=file.digest,
            labels=head.labels,
            backend=f"tensorrt {trt.__version__}",
            precision=target.precision,
            device=placement.name,
            canvas=head.canvas,
            advice=head.advice,
        ),
        placement,
        executor,
        DenseHead(),
        Shapes(head.canvas, head.stride, target.profile.buckets),
    )
    engine.warm()
    return engine


def write_engine(source: Path, out: Path, *, half: bool) -> None:
    """Build the engine of an ONNX model for this machine's first GPU and write it to `out`, an `.engine` file for `load`.

    It is good for GPUs of the same name and for this version of TensorRT. Raises ConfigurationError as `load` does.
    """
    spec = ModelSpec(path=str(source), precision="f16" if half else "f32")
    trt, placement = _prepare(spec)
    file = read_model(spec)
    signature = _read_signature(file)
    target = _aim(file, read_head(signature, source, spec), spec, trt, placement)
    out.write_bytes(_build(file, target, signature, trt).pack())


@dataclass(frozen=True, slots=True)
class _Cached:
    """This backend, as `open_fastest` asks for one."""

    cache_dir: Path | None

    def load(self, spec: ModelSpec) -> Detector:
        return load(spec, self.cache_dir)

    def precisions(self, spec: ModelSpec) -> tuple[str, ...]:
        file = read_model(spec)
        if _is_engine(file):
            made = EngineFile.unpack(file.content)
            return (made.target.precision if made else "f32",)
        if said := _said_precision(_read_signature(file)):
            return (said,)
        return _PRECISIONS if importlib.util.find_spec("onnx") else ("f32",)

    def place(self, spec: ModelSpec) -> str:
        trt, placement = _prepare(spec)
        return f"tensorrt {trt.__version__} on {placement.name}"


def _prepare(spec: ModelSpec) -> tuple[Any, "Placement"]:
    """TensorRT, and the GPU to run on."""
    if spec.precision not in {*_PRECISIONS, _QUANTISED, "auto"}:
        raise ConfigurationError(f"TensorRT engines are made in {', '.join(_PRECISIONS)}, not in {spec.precision}")
    calm_threads()
    try:
        trt = importlib.import_module("tensorrt")
        torch = importlib.import_module("torch")
    except ImportError as error:
        # Also raised by the package itself, where its libraries do not load.
        raise ConfigurationError(
            f"TensorRT does not import here ({error}): pip install 'sightstream[tensorrt]'"
        ) from error
    if not torch.cuda.is_available():
        raise ConfigurationError("TensorRT needs an NVIDIA GPU, and torch sees none: is the NVIDIA driver installed?")
    from detectors.torch_device import choose_placement  # noqa: PLC0415 - brings torch

    # Planes are made in float32; what the engine computes in is its own matter.
    placement = choose_placement(replace(spec, precision="f32"))
    if not placement.is_cuda:
        raise ConfigurationError(f"TensorRT runs on NVIDIA GPUs, not on {spec.device}; choose cuda:0, or auto")
    torch.cuda.set_device(placement.device)
    return trt, placement


def _open_file(
    file: ModelFile, spec: ModelSpec, trt: Any, placement: "Placement"
) -> tuple[Head, Target, "Executor"] | None:
    """What an `.engine` file holds; None for any other file."""
    if not _is_engine(file):
        return None
    made = EngineFile.unpack(file.content)
    if made is None:
        raise ConfigurationError(f"{file.path} is no engine that `sightstream models export` wrote, or is damaged")
    target = made.target
    if (target.gpu, target.tensorrt) != (placement.name, trt.__version__):
        raise ConfigurationError(
            f"{file.path} is for TensorRT {target.tensorrt} on {target.gpu}, and this is TensorRT {trt.__version__} on "
            f"{placement.name}; open the ONNX file instead, or export it anew here"
        )
    if spec.precision not in {"auto", target.precision}:
        raise ConfigurationError(f"{file.path} computes in {target.precision}, not in {spec.precision}")
    head = read_head(made.signature, file.path, replace(spec, image_size=max(target.profile.most[2:])))
    if spec.image_size not in {None, max(head.canvas)}:
        raise ConfigurationError(f"{file.path} is for images of {max(head.canvas)} pixels, not {spec.image_size}")
    executor = _open_plan(trt, made.plan, placement)
    if executor is None:
        raise ConfigurationError(f"TensorRT does not open {file.path}; export it anew")
    return head, target, executor


def _open_graph(
    file: ModelFile, spec: ModelSpec, trt: Any, placement: "Placement", cache_dir: Path | None
) -> tuple[Head, Target, "Executor"]:
    """The engine of an ONNX file, kept or built."""
    signature = _read_signature(file)
    head = read_head(signature, file.path, spec)
    target = _aim(file, head, spec, trt, placement)
    executor = open_or_build(
        None if cache_dir is None else cache_dir / "engines",
        target,
        lambda plan: _open_plan(trt, plan, placement),
        lambda: _build(file, target, signature, trt),
    )
    return head, target, executor


def _aim(file: ModelFile, head: Head, spec: ModelSpec, trt: Any, placement: "Placement") -> Target:
    if head.stride and any(side % head.stride for side in head.canvas):
        raise ConfigurationError(f"image_size {spec.image_size} is not a multiple of the model's stride, {head.stride}")
    if spec.precision == _QUANTISED != head.precision:
        raise ConfigurationError(
            f"{file.path} is not quantised; TensorRT engines of it are in {', '.join(_PRECISIONS)}"
        )
    # A network of its own precision computes in that, whatever is asked for.
    return Target(placement.name, trt.__version__, file.digest, head.precision or spec.precision, Profile.of(head))


def _build(file: ModelFile, target: Target, signature: Signature, trt: Any) -> EngineFile:
    from detectors.tensorrt_runtime import build_plan  # noqa: PLC0415 - brings torch

    half = target.precision == "f16"
    graph = _to_half(file) if half and not _said_precision(signature) else _widen(file)
    return EngineFile(target, signature, build_plan(trt, graph, target.profile, tf32=half))


def _is_engine(file: ModelFile) -> bool:
    return file.path.suffix.lower() == ".engine"


def _said_precision(signature: Signature) -> str:
    return signature.metadata.get(PRECISION_KEY, "")


def _to_half(file: ModelFile) -> bytes:
    converter = importlib.import_module("detectors.export_onnx")
    with tempfile.TemporaryDirectory() as directory:
        source, half = Path(directory, "model.onnx"), Path(directory, "half.onnx")
        source.write_bytes(file.content)
        converter.write_half(source, half)
        return half.read_bytes()


def _widen(file: ModelFile) -> bytes:
    """In float32, where weights are kept in less; as it is where nothing is installed that could widen it."""
    if not importlib.util.find_spec("onnx"):
        return file.content
    return bytes(importlib.import_module("detectors.export_onnx").widen_weights(file.content))


def _open_plan(trt: Any, plan: bytes, placement: "Placement") -> "Executor | None":
    from detectors.tensorrt_runtime import Executor  # noqa: PLC0415 - brings torch

    return Executor.open(trt, plan, placement.find_stream)


def _read_signature(file: ModelFile) -> Signature:
    """What the file says of itself, by OpenVINO's reader, as that is installed everywhere; and that it is quantised, which it does not."""
    graphs = importlib.import_module("detectors.openvino_graph")
    ov = importlib.import_module("detectors.openvino_library").ov
    network = graphs.read_network(ov.Core(), file)
    signature: Signature = graphs.read_signature(network)
    said = {PRECISION_KEY: _QUANTISED} if graphs.is_quantised(network) else {}
    return replace(signature, metadata={**signature.metadata, **said})
