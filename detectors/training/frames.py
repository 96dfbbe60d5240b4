"""The size of a picture from its header alone: reading thousands of them has to be quick."""

from collections.abc import Callable
from pathlib import Path
from typing import IO

from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from detectors.jpeg_header import read_orientation

# Magic bytes -> Pillow's class: not `Image.open`, which knows formats that the pipeline does not take.
_OPENERS: dict[bytes, Callable[[IO[bytes]], ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG": PngImageFile,
    b"RIFF": WebPImageFile,
}
_TURNED = {5, 6, 7, 8}

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def read_frame(file: Path) -> tuple[tuple[int, int], bool]:
    """(width, height) of the oriented frame in pixels, and whether EXIF turns the picture a quarter, so that sides are exchanged.

    Raises OSError where the file cannot be read, ValueError where it begins like no JPEG, PNG or WebP; pixels are not looked at.
    """
    with file.open("rb") as stream:
        start = stream.read(4)
        opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
        if opener is None:
            raise ValueError("neither JPEG nor PNG nor WebP by its first bytes" if start else "the file is empty")
        stream.seek(0)
        try:
            with opener(stream) as image:
                (width, height), turned = image.size, read_orientation(image) in _TURNED
        except Exception as error:
            # Pillow raises whatever it likes on a broken header: SyntaxError, OSError, struct.error ...
            raise ValueError("its header is broken") from error
    return ((height, width) if turned else (width, height)), turned
