"""torchvision's detection models, from checkpoints of our own format (`.pth`): SSD, SSDlite, RetinaNet, FCOS, Faster R-CNN.

A checkpoint is a dict that `torch.save` wrote and that is read with `weights_only`, so it cannot run code:
`architecture` (torchvision's name of the model's builder), `arguments` (what the builder is given besides; plain values), `labels` (of
the classes, without the background that torchvision counts as class 0) and `state_dict`.

Not promised: what the architecture itself limits. The scaling to its input is torchvision's own, and so is the number of candidates that it
looks at (`topk_candidates`, and in R-CNNs the proposals); a limit or an overlap that a request asks for works on what these leave.
"""

import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectors.base import ModelInfo
from detectors.spec import ModelFile, ModelSpec, read_model
from detectors.torch_environment import calm_threads
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from detectors.torchvision_engine import TorchvisionEngine

ARCHITECTURES = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)


def load(spec: ModelSpec, *, compiler: str = "inductor") -> "TorchvisionEngine":
    """Load and warm a checkpoint; `compiler`: the backend of `torch.compile`, for the backbone, where `spec.compiled` asks for it.

    Raises ConfigurationError without the extra, or if the file is no such checkpoint, or the device or precision is not there.
    """
    file = read_model(spec)
    torchvision = _import("torchvision")
    # Only now: they bring torch.
    from detectors.torch_device import choose_placement, compile_network  # noqa: PLC0415
    from detectors.torchvision_engine import TorchvisionEngine, find_canvas  # noqa: PLC0415

    placement = choose_placement(spec)
    checkpoint = _read_checkpoint(file)
    architecture, labels = checkpoint["architecture"], tuple(map(str, checkpoint["labels"]))
    network = build_network(architecture, len(labels), _with_size(architecture, checkpoint["arguments"], spec))
    try:
        network.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise ConfigurationError(
            f"{file.path}: the weights are not those of its architecture, {architecture}"
        ) from error
    network = network.to(placement.device).eval()
    if spec.compiled:
        network.backbone = compile_network(network.backbone, compiler)
    engine = TorchvisionEngine(
        spec,
        ModelInfo(
            name=spec.model_name,
            version=spec.version,
            digest=file.digest,
            labels=labels,
            backend=f"torchvision {torchvision.__version__}{', compiled' if spec.compiled else ''}",
            precision=placement.precision,
            device=placement.name,
            canvas=find_canvas(network),
            advice=spec.advise(),
        ),
        placement,
        network,
    )
    engine.warm()
    return engine


def precisions(spec: ModelSpec) -> tuple[str, ...]:
    """What `auto` may choose from, f32 first. Raises ConfigurationError as `load` does."""
    _import("torchvision")
    from detectors.torch_device import offered_precisions  # noqa: PLC0415 - brings torch

    return offered_precisions(spec)


def place(spec: ModelSpec) -> str:
    """The library, its version and the device: what a measurement holds for."""
    _import("torchvision")
    from detectors.torch_device import choose_placement  # noqa: PLC0415 - brings torch

    return choose_placement(spec).place


def build_network(architecture: str, classes: int, arguments: Mapping[str, Any]) -> Any:
    """The network of that name with random weights, for so many classes besides the background. Fetches nothing.

    Raises ConfigurationError for an architecture that is not among `ARCHITECTURES`, or arguments that its builder refuses.
    """
    if architecture not in ARCHITECTURES:
        raise ConfigurationError(f"no architecture {architecture!r}; known are: {', '.join(ARCHITECTURES)}")
    models = _import("torchvision").models
    try:
        return models.get_model(architecture, weights=None, weights_backbone=None, num_classes=classes + 1, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{architecture} does not take these arguments: {error}") from error


def write_checkpoint(
    path: Path, architecture: str, labels: Sequence[str], state_dict: Mapping[str, Any], arguments: Mapping[str, Any]
) -> None:
    """Write what `load` reads; `path` should end in `.pth`. Weights are stored as on a CPU."""
    torch = _import("torch")
    checkpoint = {
        "architecture": architecture,
        "arguments": dict(arguments),
        "labels": list(labels),
        "state_dict": {name: value.cpu() for name, value in state_dict.items()},
    }
    torch.save(checkpoint, path)


def _import(name: str) -> Any:
    calm_threads()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"a .pth model needs torchvision, and {error.name} is not installed: pip install 'sightstream[torch]'"
        ) from error


def _read_checkpoint(file: ModelFile) -> dict[str, Any]:
    torch = _import("torch")
    try:
        checkpoint = torch.load(io.BytesIO(file.content), map_location="cpu", weights_only=True)
        kinds = {"architecture": str, "arguments": dict, "labels": list, "state_dict": dict}
        wrong = [name for name, kind in kinds.items() if not isinstance(checkpoint[name], kind)]
    except Exception as error:
        raise ConfigurationError(f"{file.path} is not a checkpoint that loads safely") from error
    if wrong or not checkpoint["labels"]:
        raise ConfigurationError(f"{file.path} is not a checkpoint of a detector: {', '.join(wrong) or 'no labels'}")
    known: dict[str, Any] = checkpoint
    return known


def _with_size(architecture: str, arguments: Mapping[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """The builder's arguments, with the longer side that `spec` asks for; an SSD's input is of the architecture's own size."""
    if spec.image_size is None or architecture.startswith("ssd"):
        return dict(arguments)
    return {**arguments, "min_size": spec.image_size, "max_size": spec.image_size}
