"""From the bytes of a file to RGB pixels in the oriented frame.

JPEG, PNG and WebP, told apart by their first bytes. JPEG goes through libjpeg-turbo (simplejpeg), the rest through OpenCV: the fastest that
give the pixels of Pillow (`tests/benchmarks/decoders.py`). What they refuse goes through Pillow, which forgives more, but no truncation.
Of animated files the first frame is taken. Alpha is dropped, not blended, as the tools do that train detectors; 16-bit samples keep their
high byte; CMYK and palettes become RGB. Imported by decoder processes, which must start fast: nothing heavy belongs here.
"""

import io
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from detectors.jpeg_header import APP1, START_OF_SCAN, read_orientation, read_segments
from schemas.errors import Reason, RejectedError

log = logging.getLogger(__name__)
# OpenCV prints a line for each broken image otherwise; its refusal says enough.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

Pixels: TypeAlias = NDArray[np.uint8]
Opener: TypeAlias = Callable[[io.BytesIO], ImageFile.ImageFile]

_SEQUENTIAL_FRAMES = {0xC0, 0xC1}

# More scans than any encoder writes; each costs a pass over all pixels (libjpeg-turbo's own limit when it fuzzes).
_MAX_JPEG_SCANS = 500
# The reductions for which libjpeg-turbo has vector code; most of what lies between takes longer than decoding whole.
_REDUCTIONS = (8, 4, 2)
# So many pixels are left for one of the canvas, along a side: fewer would blur what a whole picture shows the model.
_SPARE = 2
# EXIF orientation -> the turn that puts the picture upright, on arrays (height, width, 3); 1 and unknown values need none.
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}
_TRANSPOSING = {5, 6, 7, 8}


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Pixels as `decode` gives them, maybe reduced, and (width, height) of the whole frame that they show."""

    pixels: Pixels
    frame: tuple[int, int]


def decode(content: bytes, max_pixels: int) -> Pixels:
    """Decode an image whole: uint8, (height, width, 3), RGB, C-contiguous, upright.

    Raises RejectedError: IMAGE_EMPTY, IMAGE_TYPE_UNSUPPORTED, IMAGE_TOO_MANY_PIXELS (by the header, before any pixel is decoded) or
    IMAGE_CORRUPT, which a truncated file is too. Raises MemoryError as it comes.
    """
    return decode_for(content, max_pixels, None).pixels


def decode_for(
    content: bytes, max_pixels: int, canvas: tuple[int, int] | None, buffer: Pixels | None = None
) -> Decoded:
    """Decode an image for models whose largest input is `canvas`, (width, height); otherwise like `decode`, and raises the same.

    A JPEG far larger than that is decoded reduced, to a half, a quarter or an eighth, which saves time and most of the memory. What is left
    is at least `_SPARE` times what the canvas shows of it. `max_pixels` is for the frame all the same.
    `buffer`: where pixels may be put that are decoded without a further step, at least three bytes for each of `max_pixels`.
    """
    try:
        return _decode(content, max_pixels, canvas, buffer)
    except (RejectedError, MemoryError):
        raise
    except Exception as error:
        # Decoders raise whatever they like on broken input: OSError, SyntaxError, ValueError, struct.error, IndexError ...
        raise RejectedError(Reason.IMAGE_CORRUPT, f"the image does not decode: {error}") from error


def _decode(content: bytes, max_pixels: int, canvas: tuple[int, int] | None, buffer: Pixels | None) -> Decoded:
    opener = _choose_opener(content)
    if opener is JpegImageFile:
        return _decode_jpeg(content, max_pixels, canvas, buffer)
    _check_size(_read_png_size(content) if opener is PngImageFile else _read_webp_size(content), max_pixels)
    return _decode_with_opencv(content) or _decode_with_pillow(content, opener, max_pixels)


def _choose_opener(content: bytes) -> Opener:
    """Pillow's class for the format. Not `Image.open`, which others patch and which warns by bounds that are not ours."""
    if not content:
        raise RejectedError(Reason.IMAGE_EMPTY, "the image has no bytes")
    if content.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return WebPImageFile
    raise RejectedError(Reason.IMAGE_TYPE_UNSUPPORTED, "neither JPEG nor PNG nor WebP by its first bytes")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise RejectedError(
            Reason.IMAGE_TOO_MANY_PIXELS, f"{width}x{height} pixels; at most {max_pixels} in all are decoded"
        )


def _decode_jpeg(content: bytes, max_pixels: int, canvas: tuple[int, int] | None, buffer: Pixels | None) -> Decoded:
    if not _has_one_scan(content) and content.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise RejectedError(Reason.IMAGE_CORRUPT, f"more than {_MAX_JPEG_SCANS} scans")
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        _check_size((width, height), max_pixels)
        if colours not in {"CMYK", "YCCK"}:
            orientation = _read_jpeg_orientation(content)
            frame = (height, width) if orientation in _TRANSPOSING else (width, height)
            parts = _choose_reduction(frame, canvas)
            # libjpeg-turbo takes the smallest picture that has as many pixels as these; rounded up, as it rounds.
            at_least = {"min_height": -(-height // parts), "min_width": -(-width // parts)}
            pixels = simplejpeg.decode_jpeg(content, "RGB", buffer=buffer, **at_least)
            return Decoded(_turn_upright(pixels, orientation), frame)
    except ValueError as error:
        # It is strict about harmless flaws, such as stray bytes between segments; Pillow forgives those, but not truncation.
        log.debug("a JPEG goes through Pillow: %s", error)
    return _decode_with_pillow(content, JpegImageFile, max_pixels)


def _choose_reduction(frame: tuple[int, int], canvas: tuple[int, int] | None) -> int:
    """1, 2, 4 or 8: into which part of its sides a picture may be decoded."""
    if canvas is None:
        return 1
    gain = min(canvas[0] / frame[0], canvas[1] / frame[1])
    return next((parts for parts in _REDUCTIONS if parts * gain * _SPARE <= 1), 1)


def _has_one_scan(content: bytes) -> bool:
    """Whether one scan holds all there is: libjpeg-turbo then reads no other, and counting them would cost a twentieth of decoding."""
    components = b""
    for marker, payload in read_segments(content):
        if marker in _SEQUENTIAL_FRAMES:
            components = payload[5:6]
        if marker == START_OF_SCAN:
            return bool(components) and payload[:1] == components
    return False


def _read_jpeg_orientation(content: bytes) -> int:
    """The EXIF orientation, from the first segment APP1 that holds EXIF data. Source: EXIF 2.32, section 4.7.2."""
    for marker, payload in read_segments(content):
        if marker == APP1 and payload.startswith(b"Exif\0\0"):
            return read_orientation(payload)
    return 1


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    turn = _UPRIGHT.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _decode_with_opencv(content: bytes) -> Decoded | None:
    """It turns the picture upright, drops alpha and refuses what is truncated, as we want it; None where it refuses."""
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return None
    return None if pixels is None else Decoded(pixels, (pixels.shape[1], pixels.shape[0]))


def _decode_with_pillow(content: bytes, opener: Opener, max_pixels: int) -> Decoded:
    with opener(io.BytesIO(content)) as image:
        _check_size(image.size, max_pixels)
        orientation = read_orientation(image)
        pixels = _turn_upright(_to_rgb(image), orientation)
        return Decoded(pixels, (pixels.shape[1], pixels.shape[0]))


def _to_rgb(image: Pillow.Image) -> Pixels:
    if image.mode.startswith("I"):
        # 16-bit grey. Pillow would clip it at 255 rather than scale it.
        high = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(high[:, :, np.newaxis], 3, axis=2)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _read_png_size(content: bytes) -> tuple[int, int]:
    """Width and height from the first chunk. Source: PNG, third edition, section 11.2.1."""
    if content[12:16] != b"IHDR":
        raise ValueError("no header chunk")
    width, height = struct.unpack_from(">II", content, 16)
    return width, height


def _read_webp_size(content: bytes) -> tuple[int, int]:
    """Width and height from the first chunk. Source: RFC 9649, sections 2.5 to 2.7."""
    chunk = content[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(content[start : start + 3], "little") for start in (24, 27))
        return width + 1, height + 1
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF
