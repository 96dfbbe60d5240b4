"""Ultralytics checkpoints (`.pt`) on torch: the optional extra. Ultralytics loads the network; the rest is ours.

Ultralytics is AGPL-3.0 and an option that the user turns on. A checkpoint is a pickle; it is loaded with Ultralytics' allow-list
(`weights_only`) switched on, yet only checkpoints of trusted origin belong here: pin them by digest.
"""

import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import PIL.Image

from detectors.base import ModelInfo
from detectors.spec import ModelFile, ModelSpec, read_model
from detectors.torch_environment import calm_threads
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from detectors.torch_engine import TorchEngine

# Read by Ultralytics when it is imported: no installer, no network, no code from checkpoints.
_CONFINED = {
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",
    "ULTRALYTICS_SAFE_LOAD": "true",
    "YOLO_VERBOSE": "false",
}


def load(spec: ModelSpec, *, compiler: str = "inductor") -> "TorchEngine":
    """Load and warm a checkpoint; `compiler`: the backend of `torch.compile` where `spec.compiled` asks for it.

    Raises ConfigurationError without the extra, or if the file is not a detection checkpoint, or the device or precision is not there.
    """
    file = read_model(spec)
    ultralytics = import_confined()
    # Only now: they bring torch.
    import torch  # noqa: PLC0415

    from detectors.torch_device import choose_placement, compile_network  # noqa: PLC0415
    from detectors.torch_engine import Shapes, TorchEngine  # noqa: PLC0415
    from detectors.torch_heads import DistributionHead  # noqa: PLC0415

    placement = choose_placement(spec)
    network = _load_network(ultralytics, file)
    head = network.model[-1]
    strides = [int(stride) for stride in head.stride]
    size = spec.image_size or 640
    if size % max(strides):
        raise ConfigurationError(f"image_size {size} is not a multiple of the model's stride, {max(strides)}")
    engine = TorchEngine(
        spec,
        ModelInfo(
            name=spec.model_name,
            version=spec.version,
            digest=file.digest,
            labels=tuple(str(network.names[class_id]) for class_id in range(len(network.names))),
            backend=f"ultralytics {ultralytics.__version__}, torch {torch.__version__}{', compiled' if spec.compiled else ''}",
            precision=placement.precision,
            device=placement.name,
            canvas=(size, size),
            advice=spec.advise(),
        ),
        placement,
        compile_network(_undecoded(placement.adopt(network)), compiler if spec.compiled else None),
        DistributionHead(strides, int(head.reg_max)),
        Shapes.of(size, max(strides), placement, compiled=spec.compiled),
    )
    engine.warm()
    return engine


def precisions(spec: ModelSpec) -> tuple[str, ...]:
    """What `auto` may choose from, f32 first. Raises ConfigurationError as `load` does."""
    import_confined()
    from detectors.torch_device import offered_precisions  # noqa: PLC0415 - brings torch

    return offered_precisions(spec)


def place(spec: ModelSpec) -> str:
    """The library, its version and the device: what a measurement holds for."""
    import_confined()
    from detectors.torch_device import choose_placement  # noqa: PLC0415 - brings torch

    return choose_placement(spec).place


def import_confined() -> Any:
    """Ultralytics, imported so that it installs nothing, fetches nothing and leaves `PIL.Image.open` as it was."""
    os.environ.update(_CONFINED)
    calm_threads()
    open_image = PIL.Image.open
    try:
        return importlib.import_module("ultralytics")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"a .pt model needs Ultralytics (AGPL-3.0), and {error.name} is not installed: pip install 'sightstream[ultralytics]'"
        ) from error
    finally:
        PIL.Image.open = open_image


def _load_network(ultralytics: Any, file: ModelFile) -> Any:
    try:
        model = ultralytics.YOLO(str(file.path), task="detect")
        network = model.model
    except Exception as error:
        raise ConfigurationError(f"{file.path} is not a checkpoint that Ultralytics loads safely") from error
    if model.task != "detect" or getattr(network, "end2end", False):
        raise ConfigurationError(
            f"{file.path} is a {model.task} model of a head without NMS; a YOLOv8-style detection head is needed"
        )
    return network.fuse(verbose=False).float().eval()


def _undecoded(network: Any) -> Callable[[Any], Any]:
    """The network as a function to what its head found, undecoded: distributions of the boxes' sides, and logits of the classes.

    That is what the head gives while it trains; the flag is its own, and the layers within it stay as they are. Our own decoding keeps
    to the candidates, and in float32.
    """
    network.model[-1].training = True

    def call(planes: Any) -> Any:
        raw = network(planes)
        return raw["boxes"], raw["scores"]

    return call
