"""From pixels to the planes that a network takes, as torch operations, so that a GPU letterboxes what it was sent as it came."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from numpy.typing import NDArray

from detectors.boxes import PADDING_GREY, Letterbox


def place_on_host(
    pixels: Sequence[NDArray[np.uint8]], letterboxes: Sequence[Letterbox], size: int
) -> NDArray[np.uint8]:
    """Images letterboxed onto canvases of one size, (size, height, width, 3); those beyond the images are grey."""
    width, height = letterboxes[0].canvas
    canvases = np.empty((size, height, width, 3), np.uint8)
    for canvas, letterbox, image in zip(canvases, letterboxes, pixels, strict=False):
        canvas[:] = letterbox.apply(image)
    canvases[len(pixels) :] = PADDING_GREY
    return canvases


def place_on_device(pixels: Sequence[Any], letterboxes: Sequence[Letterbox], size: int) -> Any:
    """As `place_on_host`, from tensors uint8 (height, width, 3) and on their device: float32 (size, 3, height, width), 0..255.

    Bilinear with pixel centres at halves and no antialiasing, rounded to whole numbers, which is what `Letterbox.apply` does. The two
    differ by 1 where OpenCV's fixed-point weights round the other way, and not by more.
    """
    width, height = letterboxes[0].canvas
    canvases = torch.full((size, 3, height, width), float(PADDING_GREY), device=pixels[0].device)
    canvases = canvases.contiguous(memory_format=torch.channels_last)
    for canvas, letterbox, image in zip(canvases, letterboxes, pixels, strict=False):
        left, top = letterbox.offset
        across, down = letterbox.resized
        planes = image.permute(2, 0, 1).float()
        if planes.shape[1:] != (down, across):
            planes = F.interpolate(planes[None], size=(down, across), mode="bilinear", align_corners=False)[0].round_()
        canvas[:, top : top + down, left : left + across] = planes
    return canvases


class Stage:
    """The way of one call's pixels to a device: a stream of its own, and page-locked memory that it copies from.

    Used by one call at a time; its memory is used again only after `finish`. On a CPU nothing is copied and nothing waited for.
    """

    def __init__(self, device: Any) -> None:
        self._device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._locked = torch.empty(0, dtype=torch.uint8)

    def upload(self, pixels: Sequence[NDArray[np.uint8]]) -> list[Any]:
        """The arrays as tensors of the same shapes on the device: one copy for all, under way when this returns."""
        if self.stream is None:
            return [torch.from_numpy(np.require(image, requirements=("C", "W"))) for image in pixels]
        flat = self._lock(sum(image.size for image in pixels))
        np.concatenate([image.reshape(-1) for image in pixels], out=flat.numpy())
        sent = flat.to(self._device, non_blocking=True)
        parts = sent.split([image.size for image in pixels])
        return [part.view(image.shape) for part, image in zip(parts, pixels, strict=True)]

    def finish(self) -> None:
        """Wait for all that was put on the stream."""
        if self.stream is not None:
            self.stream.synchronize()

    def _lock(self, size: int) -> Any:
        if self._locked.numel() < size:
            # Powers of two: locking memory takes milliseconds, and batches differ in size.
            self._locked = torch.empty(1 << (size - 1).bit_length(), dtype=torch.uint8, pin_memory=True)
        return self._locked[:size]


class Stages:
    """As many stages as calls may be on their way at once."""

    def __init__(self, device: Any, count: int) -> None:
        self._free: SimpleQueue[Stage] = SimpleQueue()
        for _ in range(count):
            self._free.put(Stage(device))

    @contextmanager
    def take(self) -> Iterator[Stage]:
        """A stage for one call, its stream the current one; at the end all that was put on it is done."""
        stage = self._free.get()
        try:
            with torch.inference_mode(), torch.cuda.stream(stage.stream):
                yield stage
        finally:
            stage.finish()
            self._free.put(stage)
