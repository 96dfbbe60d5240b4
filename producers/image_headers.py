"""What the first bytes of an image say, read while they arrive: JPEG, PNG and WebP, and no pixel of them.

A walker is a generator that is told bytes and asks for more: it yields `(advance, need)`, go on by `advance` bytes and show me `need` bytes
from there, and returns where the picture ends, if the format says so. Sources: ITU T.81, annex B; PNG, third edition, section 5; RFC 9649.
"""

import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from schemas.errors import Reason, RejectedError

Kind: TypeAlias = Literal["jpg", "png", "webp"]
Walker: TypeAlias = Generator[tuple[int, int], bytes, None]
OnSize: TypeAlias = Callable[[int, int], None]

FIRST_BYTES = 16
_PNG = b"\x89PNG\r\n\x1a\n"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# Decoders forgive stray bytes between segments; what costs us a step for each of them we do not forgive for ever.
_MAX_STEPS = 65_536


@dataclass(frozen=True, slots=True)
class Format:
    """How to read one kind of file. `marks_its_end`: the picture ends at a marker in its data, not at a place known before."""

    kind: Kind
    walk: Callable[[OnSize], Walker]
    marks_its_end: bool = False


def tell_format(first: bytes) -> Format:
    """The format of a file by its first bytes, `FIRST_BYTES` of them if there are so many.

    Raises RejectedError: IMAGE_EMPTY, IMAGE_TYPE_UNSUPPORTED.
    """
    if not first:
        raise RejectedError(Reason.IMAGE_EMPTY, "the image has no bytes")
    if first.startswith(b"\xff\xd8\xff"):
        return _JPEG_FORMAT
    if first.startswith(_PNG):
        return _PNG_FORMAT
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return _WEBP_FORMAT
    raise RejectedError(Reason.IMAGE_TYPE_UNSUPPORTED, "neither JPEG nor PNG nor WebP by its first bytes")


def _walk_jpeg(on_size: OnSize) -> Walker:
    advance, framed = 2, False
    for _ in range(_MAX_STEPS):
        head = yield advance, 4
        marker = head[1]
        if head[0] != 0xFF or marker == 0xFF:  # a stray byte, or one that fills
            advance = 1
        elif marker in _ALONE:
            advance = 2
        elif marker == _START_OF_SCAN and framed:
            return
        elif marker in {0, _END_OF_IMAGE, _START_OF_SCAN}:
            raise _corrupt("a JPEG without a frame")
        else:
            if marker in _FRAMES and not framed:
                frame = yield 0, 9
                height, width = struct.unpack_from(">HH", frame, 5)
                on_size(width, height)
                framed = True
            advance = 2 + max(2, int.from_bytes(head[2:4], "big"))
    raise _corrupt("a JPEG of stray bytes")


def _walk_png(on_size: OnSize) -> Walker:
    head = yield 8, 16
    if head[4:8] != b"IHDR":
        raise _corrupt("a PNG without a header chunk")
    on_size(*struct.unpack_from(">II", head, 8))
    advance = 0
    for _ in range(_MAX_STEPS):
        head = yield advance, 8
        length, name = struct.unpack(">I4s", head[:8])
        advance = 12 + length
        if name == b"IEND":
            yield advance, 0
            return
    raise _corrupt("a PNG of too many chunks")


def _walk_webp(on_size: OnSize) -> Walker:
    head = yield 4, 26
    total, chunk = int.from_bytes(head[:4], "little"), head[8:12]
    if chunk == b"VP8X":
        width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (20, 23))
    elif chunk == b"VP8L":
        bits = int.from_bytes(head[17:21], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", head, 22))
    else:
        raise _corrupt("a WebP without a picture")
    on_size(width, height)
    yield 4 + total, 0


def _corrupt(what: str) -> RejectedError:
    return RejectedError(Reason.IMAGE_CORRUPT, what)


_JPEG_FORMAT = Format("jpg", _walk_jpeg, marks_its_end=True)
_PNG_FORMAT = Format("png", _walk_png)
_WEBP_FORMAT = Format("webp", _walk_webp)
