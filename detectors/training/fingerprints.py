"""What tells pictures apart: the hash of a file's bytes, and one that stays when a picture is scaled, compressed or brightened."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from PIL import Image as Pillow

from detectors.base import Image
from detectors.cores import usable_cores
from detectors.images import ImageLoader, ImageOutcome, ImagePolicy, ImageRequest
from schemas.errors import BusyError, ConfigurationError, RejectedError

# The hash looks at 32x32 pixels; JPEGs may be decoded to about twice this instead of whole, all of their bytes read all the same.
_CANVAS = (64, 64)
_AT_ONCE = 64
_THUMBNAIL = (8, 8)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`sha256` of the file in hex; `hash64`: imagehash's `phash`, 64 bits; `frame`: (width, height) of the upright picture in pixels.

    `thumbnail`: the picture in 8x8 pixels of RGB, 192 bytes: what the hash, which looks at grey waves alone, is confirmed by.
    """

    sha256: str
    hash64: int
    frame: tuple[int, int]
    thumbnail: bytes


def take_fingerprints(
    files: Sequence[Path], policy: ImagePolicy, watch: Callable[[int], object] = lambda _: None
) -> dict[Path, Fingerprint | str]:
    """Decode every file as the pipeline does, in processes of their own, and take its fingerprint; or say why there is none.

    Files may lie anywhere, whatever the policy's roots are. A picture that crashes its decoder costs no other. `watch` gets the number
    of pictures done since it was last called. Raises ConfigurationError without the extra.
    """
    hashing = _import_imagehash()
    roots = tuple({file.resolve().parent for file in files})
    policy = replace(policy, roots=roots, decoders=policy.decoders or usable_cores(), decode_on="host")
    return asyncio.run(_take(files, policy, hashing, watch))


async def _take(
    files: Sequence[Path], policy: ImagePolicy, hashing: ModuleType, watch: Callable[[int], object]
) -> dict[Path, Fingerprint | str]:
    taken: dict[Path, Fingerprint | str] = {}
    async with ImageLoader(policy, _CANVAS) as loader:
        waiting = iter(files)

        async def work() -> None:
            for file in waiting:
                [outcome] = await loader.load([ImageRequest(file.resolve().as_uri())])
                taken[file] = _judge(outcome, hashing)
                watch(1)

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return {file: taken[file] for file in files}


def _judge(outcome: ImageOutcome, hashing: ModuleType) -> Fingerprint | str:
    if isinstance(outcome, RejectedError | BusyError):
        return f"{outcome.reason.value}: {outcome}"
    thumbnail = cv2.resize(outcome.pixels, _THUMBNAIL, interpolation=cv2.INTER_AREA).tobytes()
    return Fingerprint(outcome.sha256, _hash(outcome, hashing), (outcome.width, outcome.height), thumbnail)


def _hash(image: Image, hashing: ModuleType) -> int:
    bits = hashing.phash(Pillow.fromarray(image.pixels)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _import_imagehash() -> ModuleType:
    try:
        import imagehash  # noqa: PLC0415 - an extra brings it, and scipy with it
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"comparing pictures needs {error.name}, which is not installed: pip install 'sightstream[training]'"
        ) from error
    assert isinstance(imagehash, ModuleType)
    return imagehash
