"""Whether a packaged network finds on every backend what it finds in torch, where it was trained."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from detectors.base import Detector, Image, ModelInfo
from detectors.golden import draw_golden_images
from detectors.parity import Comparison
from detectors.parity_run import check_parity, find_subjects
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from detectors.torch_device import choose_placement
from detectors.torch_engine import Shapes, TorchEngine
from detectors.torch_heads import DenseHead
from detectors.training.checkpoint import Checkpoint
from detectors.training.network import STRIDE

_TORCH = "torch"
# Not a divisor of the number of golden pictures, so that a batch is left that is not full.
_BATCH = 4


def compare_backends(checkpoint: Checkpoint, model: Path, pictures: Mapping[str, Image]) -> Iterator[Comparison]:
    """Hold every backend that is here against torch, picture by picture, and each in batches against itself.

    In f32 and what else a backend offers, on `pictures` and on drawn ones of many shapes, so of many canvases. Yields what is done as
    it is done.
    """
    reference = ModelSpec(path=str(model), backend=_TORCH, device="cpu", precision="f32")
    specs = [reference, *find_subjects(ModelSpec(path=str(model)))]

    def open_one(spec: ModelSpec) -> Detector:
        return _open_in_torch(checkpoint, spec) if spec.backend == _TORCH else open_detector(spec)

    yield from check_parity(specs, draw_golden_images() | dict(pictures), _BATCH, opener=open_one)


def cut_to_shapes(pictures: Mapping[str, Image]) -> dict[str, Image]:
    """The pictures, two of three cut to a wide or a high one: models are given canvases of all shapes, data sets are often of one."""
    return {name: _cut(image, number % 3) for number, (name, image) in enumerate(pictures.items())}


def _cut(image: Image, kind: int) -> Image:
    height, width = image.pixels.shape[:2]
    part = {0: image.pixels, 1: image.pixels[: height // 2 + 1], 2: image.pixels[:, : width // 2 + 1]}[kind]
    return Image(part.copy())


def _open_in_torch(checkpoint: Checkpoint, spec: ModelSpec) -> Detector:
    placement = choose_placement(spec)
    network = checkpoint.build()
    placement.adopt(network)
    size = checkpoint.image_size
    info = ModelInfo(
        name=spec.model_name,
        version="",
        digest="",
        labels=checkpoint.names,
        backend=_TORCH,
        precision=placement.precision,
        device=placement.name,
        canvas=(size, size),
    )
    shapes = Shapes.of(size, STRIDE, placement, compiled=False)
    return TorchEngine(spec, info, placement, lambda planes: network.decode(network(planes)), DenseHead(), shapes)
