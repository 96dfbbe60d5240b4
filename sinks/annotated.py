"""Pictures with what was found in them: boxes and labels drawn on pixels, and encoded anew.

Nothing of the original file comes along: no metadata, no thumbnail, no bytes after its end.
"""

import colorsys
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from schemas.records import Detection

Encoding = Literal["jpeg", "webp"]

_GOLDEN = 0.618034
_MOST_LABELS = 300  # more cannot be told apart
_QUALITY: dict[Encoding, int] = {"jpeg": 88, "webp": 82}
# Thin coloured lines need the full resolution of colours in JPEG. WebP is spared two thirds of the effort for a few per cent of size.
_OPTIONS: dict[Encoding, dict[str, Any]] = {"jpeg": {"subsampling": "4:4:4"}, "webp": {"method": 2}}
_ELLIPSIS = "..."

_Colour = tuple[int, int, int]
_Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What to draw. Boxes are in pixels of a picture of `frame` (width, height), whatever size is drawn on.

    `max_side`: longest side of what comes out, in pixels; nothing is enlarged. `font`: a TrueType file for labels; without one,
    letters beyond ASCII are written without their accents, and other scripts as the number of the class.
    """

    boxes: Sequence[Detection]
    frame: tuple[int, int]
    max_side: int
    encoding: Encoding = "jpeg"
    font: Path | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """An encoded picture and its size in pixels."""

    content: bytes
    width: int
    height: int


def annotate(pixels: NDArray[np.uint8], drawing: Drawing) -> Drawn:
    """Draw on `pixels` (RGB, shape (height, width, 3)), which stay as they are. Takes tens of milliseconds a megapixel: not for a loop."""
    picture = _reduce(Image.fromarray(pixels), drawing.max_side)
    _Painter(picture, drawing).paint()
    out = io.BytesIO()
    picture.save(out, drawing.encoding, quality=_QUALITY[drawing.encoding], **_OPTIONS[drawing.encoding])
    return Drawn(out.getvalue(), *picture.size)


def colour_of(class_id: int) -> _Colour:
    """RGB of a class: far from those of its neighbours, by the golden ratio."""
    red, green, blue = colorsys.hls_to_rgb(class_id * _GOLDEN % 1.0, 0.52, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def ink_on(paper: _Colour) -> _Colour:
    """Black or white, whichever is easier to read there (WCAG 2.2, relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in paper)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


class _Painter:
    """Paints all boxes, then labels on top of them, the best scores' labels where they are best seen."""

    def __init__(self, picture: Image.Image, drawing: Drawing) -> None:
        self._size = picture.size
        self._draw = ImageDraw.Draw(picture)
        self._boxes = sorted(drawing.boxes, key=lambda box: box.score)
        self._gain = (picture.width / max(drawing.frame[0], 1), picture.height / max(drawing.frame[1], 1))
        side = max(picture.size)
        self._thick = max(2, round(side / 400))
        self._font = _font(drawing.font, min(max(12, side // 48), 64))
        self._any_letter = drawing.font is not None
        self._labels: list[_Rectangle] = []

    def paint(self) -> None:
        for box in self._boxes:
            self._outline(self._corners(box), colour_of(box.class_id))
        for box in self._boxes[: -_MOST_LABELS - 1 : -1]:
            self._label(box)

    def _corners(self, box: Detection) -> _Rectangle:
        """Where a box lies in the picture, within it and with its corners in order."""
        limits = (self._size[0] - 1, self._size[1] - 1)
        x1, x2 = sorted(_place(x * self._gain[0], limits[0]) for x in (box.x1, box.x2))
        y1, y2 = sorted(_place(y * self._gain[1], limits[1]) for y in (box.y1, box.y2))
        return x1, y1, x2, y2

    def _outline(self, corners: _Rectangle, colour: _Colour) -> None:
        x1, y1, x2, y2 = corners
        # A dark rim, so that the line is seen on any ground.
        self._draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0), width=self._thick + 2)
        self._draw.rectangle(corners, outline=colour, width=self._thick)

    def _label(self, box: Detection) -> None:
        text = self._fitted(self._text(box), f"{box.score:.2f}")
        left, top, right, bottom = self._draw.textbbox((0, 0), text, font=self._font)
        pad = max(2, self._thick)
        wide, high = round(right - left) + 2 * pad, round(bottom - top) + 2 * pad
        paper = colour_of(box.class_id)
        x, y = self._free_place(self._corners(box), wide, high)
        self._labels.append((x, y, x + wide, y + high))
        self._draw.rectangle((x, y, x + wide - 1, y + high - 1), fill=paper)
        self._draw.text((x + pad - left, y + pad - top), text, font=self._font, fill=ink_on(paper))

    def _text(self, box: Detection) -> str:
        label = "".join(c if c.isprintable() else " " for c in box.label).strip()
        if not self._any_letter and not label.isascii():
            plain = unicodedata.normalize("NFKD", label)
            label = "".join(c for c in plain if not unicodedata.combining(c))
            label = label if label.isascii() else ""
        return label[:100] or f"class {box.class_id}"

    def _fitted(self, label: str, score: str) -> str:
        """Label and score, shortened to the picture's width."""
        room = self._size[0] - 4 * self._thick
        text = f"{label} {score}"
        while self._draw.textlength(text, font=self._font) > room and label:
            label = label[:-1]
            text = f"{label}{_ELLIPSIS} {score}" if label else score
        return text

    def _free_place(self, corners: _Rectangle, wide: int, high: int) -> tuple[int, int]:
        """Top left corner of a label: above its box if there is room, else within or below, where it hides the least of other labels."""
        x1, y1, x2, y2 = corners
        wished = [(x1, y1 - high), (x1, y1), (x2 - wide, y1 - high), (x1, y2), (x2 - wide, y2), (x1, y2 - high)]
        most = (max(0, self._size[0] - wide), max(0, self._size[1] - high))
        places = [(min(max(0, x), most[0]), min(max(0, y), most[1])) for x, y in wished]
        # A place that had to be moved into the picture costs a little: it is further from its box.
        cost = {
            place: (self._hidden(place, wide, high), abs(place[0] - wish[0]) + abs(place[1] - wish[1]))
            for place, wish in zip(reversed(places), reversed(wished), strict=True)
        }
        return min(dict.fromkeys(places), key=lambda place: cost[place])

    def _hidden(self, place: tuple[int, int], wide: int, high: int) -> int:
        """Pixels of other labels that a label there would lie on."""
        if not self._labels:
            return 0
        others = np.array(self._labels)
        across = np.minimum(others[:, 2], place[0] + wide) - np.maximum(others[:, 0], place[0])
        down = np.minimum(others[:, 3], place[1] + high) - np.maximum(others[:, 1], place[1])
        return int((np.maximum(across, 0) * np.maximum(down, 0)).sum())


def _reduce(picture: Image.Image, max_side: int) -> Image.Image:
    """A picture of its own, with sides of at most `max_side`."""
    gain = max_side / max(picture.size)
    if gain >= 1:
        return picture.copy()
    size = (max(1, round(picture.width * gain)), max(1, round(picture.height * gain)))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _place(value: float, most: int) -> int:
    """A coordinate as a pixel of the picture; whatever a broken model said."""
    return round(min(max(value, 0.0), float(most))) if value == value else 0  # noqa: PLR0124 - NaN


@lru_cache(maxsize=64)
def _font(file: Path | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.truetype(str(file), size) if file else ImageFont.load_default(size)
