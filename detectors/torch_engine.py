"""The engine of detectors on torch: letterbox, batches in buckets, network, candidates, boxes; on a GPU, with the copies overlapped."""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from detectors.base import Boxes, Image, ModelInfo
from detectors.boxes import Found, Letterbox, Thresholds, join
from detectors.buckets import Batcher, Buckets
from detectors.device_image import DeviceImage
from detectors.spec import ModelSpec
from detectors.torch_canvas import Stage, Stages, place_on_device, place_on_host
from detectors.torch_device import Placement, is_out_of_memory
from detectors.torch_heads import Head, land
from schemas.records import DetectParameters

# Two calls at once: while one computes, the other copies and letterboxes before it or reads boxes after it.
CONCURRENCY = 2


@dataclass(frozen=True, slots=True)
class Shapes:
    """What a network is given: canvases up to (width, height), in multiples of `stride` or, with None, always whole; in such batches."""

    canvas: tuple[int, int]
    stride: int | None
    buckets: Buckets

    @classmethod
    def of(cls, size: int, stride: int, placement: Placement, *, compiled: bool) -> "Shapes":
        """Square canvases of `size` pixels.

        A compiler makes code for each shape anew, so compiled networks see few: whole canvases in buckets. A GPU wants buckets for the
        sake of its memory; on a CPU padding would cost what images cost.
        """
        buckets = Buckets() if compiled or placement.is_cuda else Buckets.exact(16)
        return cls((size, size), None if compiled else stride, buckets)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    image: Image
    letterbox: Letterbox
    thresholds: Thresholds


class TorchEngine:
    """Runs images of one canvas size as one batch; each image's boxes are what it would get alone, but for rounding.

    `network(planes)`: called by one thread at a time with (n, 3, height, width) of 0..1 in the placement's type, channels last; what it
    gives, a tensor or a tuple of them, is read by `head`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        model: ModelInfo,
        placement: Placement,
        network: Callable[[Any], Any],
        head: Head,
        shapes: Shapes,
    ) -> None:
        self._spec = spec
        self._model = model
        self._placement = placement
        self._network = network
        self._head = head
        self._shapes = shapes
        self._batcher = Batcher(shapes.buckets, is_out_of_memory, placement.relieve)
        self._compute = torch.cuda.Stream(placement.device) if placement.is_cuda else None
        # Two forward passes at once would not be faster, and some networks keep things from call to call.
        self._turn = threading.Lock()
        self._stages = Stages(placement.device, CONCURRENCY)

    @property
    def model(self) -> ModelInfo:
        """The model that runs."""
        return self._model

    @property
    def concurrency(self) -> int:
        """Two: one computes while the other is on its way."""
        return CONCURRENCY

    @property
    def max_batch(self) -> int:
        """The largest bucket, or what is left of it since the device had no memory for more."""
        return self._batcher.bound

    def warm(self) -> None:
        """Run every shape that is compiled, or the largest and the smallest batch, so that no image of a run waits for that."""
        grey = Image(np.full((*self._shapes.canvas[::-1], 3), 114, np.uint8))
        sizes = self._shapes.buckets.sizes
        for size in sizes if self._shapes.stride is None else dict.fromkeys((sizes[-1], 1)):
            if size <= self._batcher.bound:
                self.detect([grey] * size, [DetectParameters()] * size)

    def detect(self, images: Sequence[Image], parameters: Sequence[DetectParameters]) -> Boxes:
        """Boxes of each image, in order."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        jobs = []
        for row, (image, wanted) in enumerate(zip(images, parameters, strict=True)):
            letterbox = Letterbox.fit((image.width, image.height), self._shapes.canvas, self._shapes.stride)
            jobs.append(_Job(image, letterbox, Thresholds.of(wanted, self._spec)))
            groups[letterbox.canvas].append(row)
        found: dict[int, Found] = {}
        for rows in groups.values():
            boxes = self._batcher.run([jobs[row] for row in rows], self._infer)
            found.update(zip(rows, boxes, strict=True))
        return join([found[row] for row in range(len(images))])

    def close(self) -> None:
        """Let go of the network, and of the device's memory."""
        del self._network
        if self._placement.is_cuda:
            torch.cuda.empty_cache()

    def _infer(self, jobs: Sequence[_Job], size: int) -> list[Found]:
        with self._stages.take() as stage:
            return self._run(stage, jobs, size)

    def _run(self, stage: Stage, jobs: Sequence[_Job], size: int) -> list[Found]:
        letterboxes = [job.letterbox for job in jobs]
        thresholds = [job.thresholds for job in jobs]
        planes = self._place(stage, [job.image for job in jobs], letterboxes, size)
        confidences = torch.tensor([wanted.confidence for wanted in thresholds], device=self._placement.device)
        raw = self._compute_on(stage, planes)
        return land(self._head.read(raw, confidences, letterboxes[0].canvas), thresholds, letterboxes)

    def _place(self, stage: Stage, images: Sequence[Image], letterboxes: Sequence[Letterbox], size: int) -> Any:
        if self._placement.is_cuda:
            canvases = place_on_device(self._send(stage, images), letterboxes, size)
        else:
            pixels = place_on_host([image.pixels for image in images], letterboxes, size)
            canvases = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        return canvases.div_(255).to(self._placement.dtype)

    def _send(self, stage: Stage, images: Sequence[Image]) -> list[Any]:
        """Pixels on the device, (height, width, 3); those that were decoded on one stay there."""
        sent = iter(stage.upload([image.pixels for image in images if not isinstance(image, DeviceImage)]))
        return [
            image.tensor.to(self._placement.device, non_blocking=True) if isinstance(image, DeviceImage) else next(sent)
            for image in images
        ]

    def _compute_on(self, stage: Stage, planes: Any) -> Any:
        """The network's output for `planes`, launched in its turn, and the stage's stream made to wait for it."""
        with self._turn:
            if stage.stream is None or self._compute is None:
                return self._network(planes)
            self._compute.wait_stream(stage.stream)
            with torch.cuda.stream(self._compute):
                raw = self._network(planes)
            stage.stream.wait_stream(self._compute)
        # Memory goes back to the stream that it was taken on; the allocator must know who else reads it.
        planes.record_stream(self._compute)
        for part in raw if isinstance(raw, tuple) else (raw,):
            part.record_stream(stage.stream)
        return raw
