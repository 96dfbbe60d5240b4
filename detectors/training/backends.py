"""Whether a packaged network finds on every backend what it finds in torch, where it was trained."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from detectors.base import Detector, Image, ModelInfo
from detectors.golden import draw_golden_images
from detectors.parity import Comparison, Tolerance
from detectors.parity_run import check_parity, compare_models, find_subjects
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
# The file keeps weights in float16: a box in a hundred, of those that the network is not sure of, may be further off.
_ROUNDED = Tolerance(iou=0.97, score=0.02, share=0.01)


def compare_backends(checkpoint: Checkpoint, model: Path, pictures: Mapping[str, Image]) -> Iterator[Comparison]:
    """Hold the file against torch, both in f32; then every backend that is here against the first, and each in batches against itself.

    On `pictures` and on drawn ones of many shapes, so of many canvases. Yields what is done as it is done.
    """
    images = draw_golden_images() | dict(pictures)
    subjects = find_subjects(ModelSpec(path=str(model)))
    reference = ModelSpec(path=str(model), backend=_TORCH, device="cpu", precision="f32")

    def open_one(spec: ModelSpec) -> Detector:
        return _open_in_torch(checkpoint, spec) if spec.backend == _TORCH else open_detector(spec)

    compared = compare_models(reference, replace(subjects[0], precision="f32"), images, _ROUNDED, open_one)
    yield replace(compared, subject=f"{compared.subject}, against torch")
    yield from check_parity(subjects, images, _BATCH)


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
