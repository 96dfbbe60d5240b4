"""A seeded corpus of good, odd and bad image files, each with what must become of it."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from schemas.errors import Reason

WIDTH, HEIGHT = 96, 64
ORIENTATION = 0x0112
POISON = (255, 0, 255)


@dataclass(frozen=True, slots=True)
class Case:
    """A file, and the reason for which it is refused or else the size of its oriented frame."""

    name: str
    path: Path
    reason: Reason | None = None
    width: int = 0
    height: int = 0


def photograph(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A smooth RGB picture without any symmetry, so that every turn and flip shows."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def poisoned(seed: int = 0) -> bytes:
    """A good PNG at which the fake detector raises."""
    image = photograph(seed)
    image.putpixel((0, 0), POISON)
    return encode(image, "PNG")


def corpus(directory: Path, seed: int = 0) -> list[Case]:
    """Write every case's file into `directory` and say what must become of each."""
    directory.mkdir(parents=True, exist_ok=True)
    cases = [*_good(directory, seed), *_bad(directory, seed)]
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    return cases


def _good(directory: Path, seed: int) -> Iterator[Case]:
    plain = photograph(seed)
    frames = [photograph(seed + shift) for shift in range(3)]
    files: dict[str, bytes] = {
        "plain.jpg": encode(plain, "JPEG", quality=90),
        "progressive.jpg": encode(plain, "JPEG", progressive=True),
        "grey.jpg": encode(plain.convert("L"), "JPEG"),
        "cmyk.jpg": encode(plain.convert("CMYK"), "JPEG"),
        "no-subsampling.jpg": encode(plain, "JPEG", subsampling=0),
        "stray-bytes.jpg": stray_bytes(encode(plain, "JPEG")),
        "html-tail.jpg": encode(plain, "JPEG") + b"<script>alert(1)</script>",
        "broken-exif.jpg": encode(plain, "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff"),
        "plain.png": encode(plain, "PNG"),
        "16-bit.png": encode(Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257), "PNG"),
        "16-bit-rgb.png": png(WIDTH, HEIGHT, 16, 2, _rgb16_rows(plain)),
        "grey-alpha.png": encode(plain.convert("LA"), "PNG"),
        "alpha.png": encode(with_alpha(plain), "PNG"),
        "palette.png": encode(plain.convert("P"), "PNG"),
        "palette-transparent.png": encode(plain.quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
        "one-bit.png": encode(plain.convert("1"), "PNG"),
        "animated.png": encode(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "plain.webp": encode(plain, "WEBP"),
        "lossless.webp": encode(plain, "WEBP", lossless=True),
        "alpha.webp": encode(with_alpha(plain), "WEBP"),
        "animated.webp": encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "jpeg-named.png": encode(plain, "JPEG"),
    }
    for name, content in files.items():
        yield _write(directory, name, content, width=WIDTH, height=HEIGHT)
    for orientation in range(1, 9):
        turned = encode(plain, "JPEG", exif=exif(orientation))
        width, height = (WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH)
        yield _write(directory, f"exif-{orientation}.jpg", turned, width=width, height=height)
    yield _write(directory, "exif-6.png", encode(plain, "PNG", exif=exif(6)), width=HEIGHT, height=WIDTH)
    yield _write(directory, "exif-6.webp", encode(plain, "WEBP", exif=exif(6)), width=HEIGHT, height=WIDTH)
    yield _write(directory, "1x1.jpg", encode(Image.new("RGB", (1, 1)), "JPEG"), width=1, height=1)
    yield _write(directory, "1x1.png", encode(Image.new("RGB", (1, 1)), "PNG"), width=1, height=1)
    yield _write(directory, "3000x1.png", encode(Image.new("RGB", (3000, 1)), "PNG"), width=3000, height=1)
    yield _write(directory, "1x3000.webp", encode(Image.new("RGB", (1, 3000)), "WEBP"), width=1, height=3000)


def _bad(directory: Path, seed: int) -> Iterator[Case]:
    plain = photograph(seed)
    jpeg, lossless = encode(plain, "JPEG"), encode(plain, "PNG")
    noise = np.random.default_rng(seed).bytes(4096)
    bomb = png(20_000, 20_000, 8, 0, b"\0" * 1_000)
    files: dict[str, tuple[bytes, Reason]] = {
        "empty.jpg": (b"", Reason.IMAGE_EMPTY),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], Reason.IMAGE_CORRUPT),
        "truncated-header.jpg": (jpeg[:40], Reason.IMAGE_CORRUPT),
        "truncated.png": (lossless[: len(lossless) // 2], Reason.IMAGE_CORRUPT),
        "truncated.webp": (encode(plain, "WEBP")[:200], Reason.IMAGE_CORRUPT),
        "short.webp": (b"RIFF\x10\0\0\0WEBPVP8 ", Reason.IMAGE_CORRUPT),
        "noise-after-magic.jpg": (b"\xff\xd8\xff\xe0" + noise, Reason.IMAGE_CORRUPT),
        "noise-after-magic.png": (b"\x89PNG\r\n\x1a\n" + noise, Reason.IMAGE_CORRUPT),
        "bad-crc.png": (flip(lossless, 40), Reason.IMAGE_CORRUPT),
        "too-many-scans.jpg": (jpeg[:-2] + b"\xff\xda" * 600 + b"\xff\xd9", Reason.IMAGE_CORRUPT),
        "noise.jpg": (noise, Reason.IMAGE_TYPE_UNSUPPORTED),
        "text.jpg": (b"<html>404 not found</html>", Reason.IMAGE_TYPE_UNSUPPORTED),
        "animated.gif": (encode(plain, "GIF"), Reason.IMAGE_TYPE_UNSUPPORTED),
        "plain.bmp": (encode(plain, "BMP"), Reason.IMAGE_TYPE_UNSUPPORTED),
        "plain.tiff": (encode(plain, "TIFF"), Reason.IMAGE_TYPE_UNSUPPORTED),
        "20000x20000.png": (bomb, Reason.IMAGE_TOO_MANY_PIXELS),
        "20000x20000.jpg": (resized_header(jpeg, 20_000, 20_000), Reason.IMAGE_TOO_MANY_PIXELS),
        "16383x16383.webp": (vp8x(16_383, 16_383), Reason.IMAGE_TOO_MANY_PIXELS),
    }
    for name, (content, reason) in files.items():
        yield _write(directory, name, content, reason)
    yield Case("missing.jpg", directory / "missing.jpg", Reason.IMAGE_NOT_FOUND)


def _write(
    directory: Path, name: str, content: bytes, reason: Reason | None = None, *, width: int = 0, height: int = 0
) -> Case:
    path = directory / name
    path.write_bytes(content)
    return Case(name, path, reason, width, height)


def exif(orientation: int) -> Image.Exif:
    """EXIF data with an orientation and nothing else."""
    data = Image.Exif()
    data[ORIENTATION] = orientation
    return data


def with_alpha(image: Image.Image) -> Image.Image:
    """The picture with an alpha channel that rises from left to right."""
    image = image.convert("RGBA")
    ramp = np.tile(np.linspace(0, 255, image.width, dtype=np.uint8), (image.height, 1))
    image.putalpha(Image.fromarray(ramp))
    return image


def stray_bytes(jpeg: bytes) -> bytes:
    """Zeros between two segments: wrong, harmless, and what some cameras write."""
    start = jpeg.index(b"\xff\xdb")
    return jpeg[:start] + b"\0\0" + jpeg[start:]


def fill_bytes(jpeg: bytes, count: int) -> bytes:
    """So many bytes more before the marker of each segment, which T.81 allows in B.1.1.2."""
    filled, position = jpeg[:2], 2
    while jpeg[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        filled += b"\xff" * count + jpeg[position:end]
        position = end
    return filled + b"\xff" * count + jpeg[position:]


def resized_header(jpeg: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its frame header."""
    start = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:start] + struct.pack(">HH", height, width) + jpeg[start + 4 :]


def flip(content: bytes, position: int) -> bytes:
    """The bytes with one bit of one of them turned over."""
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG of raw filtered rows. `colour`: 0 grey, 2 RGB."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def vp8x(width: int, height: int) -> bytes:
    """The header of an extended WebP of that canvas, and hardly more."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _rgb16_rows(image: Image.Image) -> bytes:
    samples = (np.asarray(image).astype(">u2") * 257).astype(">u2")
    return b"".join(b"\0" + row.tobytes() for row in samples)
