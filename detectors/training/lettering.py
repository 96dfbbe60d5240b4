"""Printed text for the scenes: made-up words, set in the fonts that matplotlib brings (DejaVu, STIX, Computer Modern)."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from detectors.training.draws import Draws, chance, pick

_SYLLABLES = [
    "an", "ber", "co", "da", "el", "fi", "go", "ha", "in", "ja", "ka", "lo", "mi", "na",
    "or", "pe", "qui", "ra", "so", "ta", "un", "va", "wo", "xi", "zu", "tre", "sta", "lin",
    "gra", "mon", "fer", "ent", "sch", "ing", "tion", "bal", "cla", "dor", "eum",
]  # fmt: skip
_FILES = (
    ("DejaVuSans", 4.0),
    ("DejaVuSans-Bold", 4.0),
    ("DejaVuSansMono", 2.0),
    ("DejaVuSansMono-Bold", 1.0),
    ("DejaVuSerif", 2.0),
    ("DejaVuSerif-Bold", 1.5),
    ("DejaVuSans-Oblique", 1.0),
    ("STIXGeneral", 2.0),
    ("STIXGeneralBol", 1.0),
    ("cmss10", 1.0),
    ("cmtt10", 1.0),
)
_STRIPS = 2
_HERSHEY = (0, 1, 2, 3, 4)
Coverage = NDArray[np.uint8]
"""How much ink lies on each pixel, uint8 (height, width), 255 = covered."""


def write_line(draws: Draws, text: str, height: float, font: str | None = None) -> Coverage:
    """`text` on one line about `height` pixels high, cut to its ink; in any font unless `font` is named."""
    if chance(draws, 0.12) and font is None:
        return _hershey(text, height, int(draws.choice(_HERSHEY)))
    return _typeset(text, _size(height), font or pick(draws, _FILES))


def write_block(draws: Draws, lines: int, height: float, width: int) -> Coverage:
    """A paragraph: `lines` lines of `height` pixels each, cut off or ragged at `width`."""
    font, pitch = pick(draws, _FILES), height * draws.uniform(1.15, 1.7)
    block = np.zeros((max(2, int(lines * pitch) + 1), max(2, width)), np.uint8)
    strip, starts = _strip(font, _size(height), int(draws.integers(_STRIPS)))
    for number in range(lines):
        line = strip[:, starts[int(draws.integers(len(starts) // 2))] :]
        top, ragged = int(number * pitch), draws.uniform(0.2, 1) if number == lines - 1 or chance(draws, 0.15) else 1
        rows, columns = min(line.shape[0], block.shape[0] - top), int(min(line.shape[1], block.shape[1]) * ragged)
        block[top : top + rows, :columns] = line[:rows, :columns]
    return block


def make_word(draws: Draws) -> str:
    """A word that no language has, a number, a date or a price."""
    kind = draws.random()
    if kind < 0.15:
        return str(draws.integers(1, 10 ** int(draws.integers(1, 9))))
    if kind < 0.2:
        return f"{draws.integers(1, 29)}.{draws.integers(1, 13)}.{draws.integers(1990, 2031)}"
    if kind < 0.25:
        return f"{draws.integers(0, 200)},{draws.integers(0, 100):02d}"
    word = "".join(draws.choice(_SYLLABLES, int(draws.integers(1, 5))))
    return word.upper() if kind > 0.85 else word.capitalize() if kind > 0.65 else word


@lru_cache(maxsize=600)
def _strip(font: str, size: int, number: int) -> tuple[Coverage, list[int]]:
    """A long line of text that does not change, and the columns where its words begin: setting type for each scene would be slow."""
    draws = np.random.default_rng([number, size])
    words = [make_word(draws) for _ in range(int(np.clip(1000 / size, 10, 60)))]
    ends = np.cumsum([_font(font, size).getlength(word + " ") for word in words])
    return _typeset(" ".join(words), size, font), [0, *map(int, ends[:-1])]


def _size(height: float) -> int:
    """Sizes in steps, so that few fonts are held: each a tenth larger than the one before."""
    steps = round(np.log(max(height, 5.0)) / np.log(1.1))
    return int(max(5, min(220, round(1.1**steps))))


@lru_cache(maxsize=400)
def _font(name: str, size: int) -> Any:
    return ImageFont.truetype(str(_folder() / f"{name}.ttf"), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=1)
def _folder() -> Path:
    import matplotlib as mpl  # noqa: PLC0415 - half a second, in the processes that draw

    return Path(mpl.get_data_path()) / "fonts" / "ttf"


def _typeset(text: str, size: int, font: str) -> Coverage:
    face = _font(font, size)
    left, top, right, bottom = face.getbbox(text)
    if right <= left or bottom <= top:
        return np.zeros((size, size), np.uint8)
    line = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(line).text((-left, -top), text, fill=255, font=face)
    return np.asarray(line)


def _hershey(text: str, height: float, face: int) -> Coverage:
    scale, thick = max(height, 6) / 30, max(1, int(height / 14))
    (width, tall), base = cv2.getTextSize(text, face, scale, thick)
    block = np.zeros((tall + base + 2 * thick, width + 2 * thick), np.uint8)
    found: Coverage = cv2.putText(block, text, (thick, tall + thick), face, scale, 255, thick, cv2.LINE_AA)
    return found
