"""What a JPEG's segments say before its first scan. Source: ITU T.81, annex B; EXIF 2.32, section 4.7.2."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from PIL import ExifTags
from PIL import Image as Pillow

APP1, START_OF_SCAN = 0xE1, 0xDA
_APP14, _BASELINE = 0xEE, 0xC0
_END = b"\xff\xd9"
# A marker begins with one such byte, and any number more may precede it (T.81, B.1.1.2).
_FILL = re.compile(rb"\xff+")


@dataclass(frozen=True, slots=True)
class BaselineHeader:
    """A JPEG as nearly all are: baseline, in three components of 8 bits that are YCbCr, in one scan, with an end.

    Sides in pixels as encoded, before `orientation`, the EXIF tag, is applied; 1 where there is none.
    """

    width: int
    height: int
    orientation: int

    @classmethod
    def read(cls, content: bytes) -> Self | None:
        """None for every other JPEG, and for what is none or is cut off: that is for a decoder to judge which knows them all."""
        size, orientation = None, None
        try:
            for marker, payload in read_segments(content):
                if marker == _BASELINE:
                    bits, height, width, components = struct.unpack_from(">BHHB", payload)
                    size = (width, height) if (bits, components) == (8, 3) else None
                elif marker == APP1 and orientation is None and payload.startswith(b"Exif\0\0"):
                    orientation = read_orientation(payload)
                elif marker == _APP14 and payload.startswith(b"Adobe") and payload[11:12] == b"\0":
                    return None  # RGB, not YCbCr
                elif marker == START_OF_SCAN and size and payload[:1] == b"\3":
                    # All components in the first scan, so that there is no other.
                    whole = content.rfind(_END) > content.find(payload)
                    return cls(*size, orientation or 1) if whole and min(size) > 0 else None
        except struct.error:
            pass
        return None


def read_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and payload of each segment, the header of the first scan included; ends early at what is no segment.

    Raises struct.error where the bytes end within a segment's length.
    """
    position, marker = 2, 0
    if not content.startswith(b"\xff\xd8"):
        return
    while marker != START_OF_SCAN and (fill := _FILL.match(content, position)):
        marker, length = struct.unpack_from(">BH", content, fill.end())
        position = fill.end() + 1 + length
        yield marker, content[fill.end() + 3 : position]


def read_orientation(source: bytes | Pillow.Image) -> int:
    """The EXIF orientation of an open image or in a segment APP1; 1 where there is none.

    Also where the metadata is broken: no reason to lose a picture.
    """
    try:
        exif = _parse(source) if isinstance(source, bytes) else source.getexif()
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - whatever broken metadata makes Pillow raise
        return 1


def _parse(segment: bytes) -> Pillow.Exif:
    exif = Pillow.Exif()
    exif.load(segment)
    return exif
