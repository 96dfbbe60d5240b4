"""Runs torchvision's detection models: they scale by themselves; the requests' thresholds work on what they leave."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from detectors.base import Boxes, Image, ModelInfo
from detectors.boxes import MAX_CANDIDATES, Found, Letterbox, Thresholds, join
from detectors.buckets import Batcher, Buckets
from detectors.device_image import DeviceImage
from detectors.spec import ModelSpec
from detectors.torch_canvas import Stage, Stages
from detectors.torch_device import Placement, is_out_of_memory
from detectors.torch_heads import Candidates, land
from schemas.records import DetectParameters

CONCURRENCY = 2
_MAX_BATCH = 16
# Above any overlap: their own suppression lets everything through, and ours goes by what each request asks for.
_NO_SUPPRESSION = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    image: Image
    thresholds: Thresholds


def find_canvas(network: Any) -> tuple[int, int] | None:
    """(width, height) of the largest input; None for an SSD, which stretches images, so that no one factor says what it sees of them."""
    scaling = network.transform
    return None if scaling.fixed_size else (int(scaling.max_size), int(scaling.max_size))


class TorchvisionEngine:
    """Runs images that end up on inputs of one size as one batch, so that each gets what it would alone, but for rounding.

    Boxes are of the model's classes without the background: torchvision's class 1 is label 0. In `bf16` and `f16` torch decides by
    operation what is computed so (autocast); coordinates stay in float32.
    """

    def __init__(self, spec: ModelSpec, model: ModelInfo, placement: Placement, network: Any) -> None:
        self._spec = spec
        self._model = model
        self._placement = placement
        self._network = network
        # R-CNNs keep the thresholds in their last stage.
        self._knobs = getattr(network, "roi_heads", network)
        self._knobs.nms_thresh = _NO_SUPPRESSION
        self._knobs.detections_per_img = MAX_CANDIDATES
        self._batcher = Batcher(Buckets.exact(_MAX_BATCH), is_out_of_memory, placement.relieve)
        # The threshold is set anew for each batch, so two at once would mix theirs up.
        self._turn = threading.Lock()
        self._stages = Stages(placement.device, CONCURRENCY)

    @property
    def model(self) -> ModelInfo:
        """The model that runs."""
        return self._model

    @property
    def concurrency(self) -> int:
        """Two: one computes while the other's pixels are on their way."""
        return CONCURRENCY

    @property
    def max_batch(self) -> int:
        """What fits a GPU at the usual sizes, or what is left of it since there was no memory for more."""
        return self._batcher.bound

    def warm(self) -> None:
        """Run once, so that the first image of a run is not slower than the rest."""
        width, height = find_canvas(self._network) or (320, 320)
        self.detect([Image(np.full((height, width, 3), 114, np.uint8))], [DetectParameters()])

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes of each image, in order."""
        jobs = [
            _Job(image, Thresholds.of(wanted, self._spec)) for image, wanted in zip(images, parameters, strict=True)
        ]
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, image in enumerate(images):
            groups[self._input_size(image)].append(row)
        found: dict[int, Found] = {}
        for rows in groups.values():
            found.update(zip(rows, self._batcher.run([jobs[row] for row in rows], self._infer), strict=True))
        return join([found[row] for row in range(len(images))])

    def close(self) -> None:
        """Let go of the network, and of the device's memory."""
        del self._network, self._knobs
        if self._placement.is_cuda:
            torch.cuda.empty_cache()

    def _input_size(self, image: Image) -> tuple[int, int]:
        """The input that `GeneralizedRCNNTransform` makes of an image that is alone: scaled by one factor, padded to multiples of 32."""
        scaling = self._network.transform
        if scaling.fixed_size:
            return tuple(scaling.fixed_size)
        sides = _pixel_size(image)
        gain = min(scaling.min_size[-1] / min(sides), scaling.max_size / max(sides))
        width, height = (-int(-int(side * gain) // scaling.size_divisible) * scaling.size_divisible for side in sides)
        return width, height

    def _infer(self, jobs: Sequence[_Job], _size: int) -> list[Found]:
        with self._stages.take() as stage:
            return self._run(stage, jobs)

    def _run(self, stage: Stage, jobs: Sequence[_Job]) -> list[Found]:
        sent = iter(stage.upload([job.image.pixels for job in jobs if not isinstance(job.image, DeviceImage)]))
        tensors = [job.image.tensor if isinstance(job.image, DeviceImage) else next(sent) for job in jobs]
        planes = [
            self._widen(tensor.to(self._placement.device).permute(2, 0, 1).float().div_(255)) for tensor in tensors
        ]
        thresholds = [job.thresholds for job in jobs]
        with self._turn:
            self._knobs.score_thresh = min(wanted.confidence for wanted in thresholds)
            with torch.autocast(
                self._placement.device.type, self._placement.dtype, enabled=self._placement.precision != "f32"
            ):
                outputs = self._network(planes)
        frames = [_frame_of(job.image) for job in jobs]
        return land(_collect(outputs, thresholds), thresholds, frames)

    def _widen(self, planes: Any) -> Any:
        """An image so narrow that no pixel would be left of it when scaled is made as wide as it must be, with black."""
        least = -(-max(planes.shape) // int(self._network.transform.max_size))
        height, width = planes.shape[1:]
        return F.pad(planes, (0, max(0, least - width), 0, max(0, least - height)))


def _collect(outputs: Sequence[Any], thresholds: Sequence[Thresholds]) -> Candidates:
    """The models' own boxes as candidates: above each request's own confidence, and no background."""
    parts = []
    for row, (output, wanted) in enumerate(zip(outputs, thresholds, strict=True)):
        kept = (output["scores"] > wanted.confidence) & (output["labels"] > 0)
        scores, labels = output["scores"][kept].float(), output["labels"][kept] - 1
        parts.append((torch.full_like(labels, row), output["boxes"][kept].float(), scores, labels))
    rows, xyxy, scores, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return Candidates(rows, xyxy, scores, labels)


def _frame_of(image: Image) -> Letterbox:
    """From the pixels that the model was given to the image's frame, which they may show reduced."""
    pixels = _pixel_size(image)
    return Letterbox((image.width, image.height), pixels, pixels)


def _pixel_size(image: Image) -> tuple[int, int]:
    if isinstance(image, DeviceImage):
        return image.width, image.height
    return int(image.pixels.shape[1]), int(image.pixels.shape[0])
