"""JPEG decoding on a GPU, by nvJPEG through torchvision, so that pixels never cross the bus; other images are the host decoders' work.

torchvision announces that its decoders will go, in favour of TorchCodec, and warns so when they are called.
"""

import importlib
import logging
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.device_image import DeviceImage
from detectors.jpeg_header import BaselineHeader
from detectors.torch_environment import calm_threads
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)

# Larger pictures would fill a GPU, and the host's decoders reduce them while they decode.
_MAX_PIXELS = 16_000_000
_MAX_BATCH = 64
# EXIF orientation -> dimensions of (height, width, channels) to swap or not, then those to flip; as `detectors.decode` turns arrays.
_UPRIGHT: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}


@dataclass(slots=True, eq=False)
class _Job:
    """An image of one waiting thread. `pixels`: on the device, upright, once it is `done`; None if the device refused it."""

    encoded: Any
    header: BaselineHeader
    pixels: Any = None
    done: bool = False


class DeviceDecoder:
    """Decodes baseline JPEGs on a device of torch; thread-safe. Those who ask while a batch is decoded are the next batch.

    Not promised: the very pixels of the host's decoder. nvJPEG interpolates colour in another way and may take a picture whose
    coded data is damaged somewhere, while truncated ones never reach it. One decoder a process: torchvision keeps a single nvJPEG state
    and would make it anew, and lose the old one's memory, with every change of device.
    """

    def __init__(self, device: str, max_pixels: int) -> None:
        """Raises ConfigurationError without the extra, or where torch has no such device here."""
        self._torch, self._io = _import("torch"), _import("torchvision.io")
        try:
            self._device = self._torch.device(device)
            self._torch.empty(1, device=self._device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigurationError(f"images.decode_on: torch has no device {device} here: {error}") from error
        self._stream = self._torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._max_pixels = min(max_pixels, _MAX_PIXELS)
        self._waiting: list[_Job] = []
        self._door = threading.Lock()
        self._turn = threading.Lock()

    def decode(self, content: bytes) -> DeviceImage | None:
        """The picture, upright, on the device; None where it is not a plain JPEG, too large, or refused: decode it on the host.

        Blocks while others' images are decoded. Raises nothing for any content.
        """
        header = BaselineHeader.read(content)
        if header is None or header.width * header.height > self._max_pixels:
            return None
        # A writable copy: torch has no read-only tensors, and warns of arrays that are.
        job = _Job(self._torch.from_numpy(np.frombuffer(content, np.uint8).copy()), header)
        with self._door:
            self._waiting.append(job)
        while not job.done:
            with self._turn:
                if not job.done:
                    self._decode_waiting()
        return None if job.pixels is None else DeviceImage(job.pixels)

    def _decode_waiting(self) -> None:
        with self._door:
            jobs, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
        try:
            with self._torch.inference_mode(), self._torch.cuda.stream(self._stream):
                self._decode_batch(jobs)
                if self._stream is not None:
                    self._stream.synchronize()
        finally:
            for job in jobs:
                job.done = True

    def _decode_batch(self, jobs: list[_Job]) -> None:
        """Decode all at once; where that fails, which tells nothing of which, one by one."""
        try:
            decoded = self._io.decode_jpeg(
                [job.encoded for job in jobs], mode=self._io.ImageReadMode.RGB, device=self._device
            )
        except RuntimeError as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._decode_batch([job])
            else:
                log.debug("a JPEG goes to the host's decoders: %s", error)
            return
        for job, planes in zip(jobs, decoded, strict=True):
            if tuple(planes.shape) == (3, job.header.height, job.header.width):
                job.pixels = _turn_upright(planes.permute(1, 2, 0), job.header.orientation).contiguous()


def _turn_upright(pixels: Any, orientation: int) -> Any:
    swapped, flipped = _UPRIGHT.get(orientation, (False, ()))
    if swapped:
        pixels = pixels.transpose(0, 1)
    return pixels.flip(flipped) if flipped else pixels


def _import(name: str) -> Any:
    calm_threads()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"images.decode_on needs torchvision, and {error.name} is not installed: pip install 'sightstream[torch]'"
        ) from error
