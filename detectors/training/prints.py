"""One code in print: ink on paper with its quiet zone, its digits, its style, as pixels with the place of the code in them."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.training.codes import Code, draw_code
from detectors.training.draws import Colour, Draws, chance, log_uniform, pick
from detectors.training.lettering import Coverage, write_line

Pixels = NDArray[np.uint8]
"""BGR, uint8 (height, width, 3)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a code lies in a block. `rect`: left, top, right, bottom in its pixels, without the quiet zone.

    `module`: pixels of its smallest module.
    """

    name: str
    rect: tuple[float, float, float, float]
    module: float


@dataclass(frozen=True, slots=True)
class Block:
    """Something printed, with the codes in it."""

    pixels: Pixels
    places: tuple[Place, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(frozen=True, slots=True)
class Stock:
    """What is printed on, and with what."""

    paper: Colour
    ink: Colour

    @property
    def inverted(self) -> "Stock":
        """Light on dark."""
        return Stock(self.ink, self.paper)


def cover(draws: Draws, code: Code, length: float) -> Coverage:
    """The ink of `code`, uint8 (height, width), its longer side `length` pixels (a linear code: its bars' row), in a style of print."""
    rows, columns = code.modules.shape
    if code.linear:
        return _cover_bars(draws, code, length)
    module = length / max(rows, columns)
    if module > 2 and chance(draws, 0.5):  # as screens and label printers draw them: whole dots a module
        module = round(module)
    size = max(2, round(columns * module)), max(2, round(rows * module))
    per = int(np.clip(np.ceil(2 * module), 4, 10))
    style = pick(draws, _STYLES[code.name])
    if style == "dots" and code.name == "qr" and min(rows, columns) < _LEAST_DOTTED_QR:
        style = "plain"
    if style == "dots":
        ink = _cover_dots(draws, code, per)
    else:
        ink = cv2.resize(code.modules * np.uint8(255), None, fx=per, fy=per, interpolation=cv2.INTER_NEAREST)
        if style == "soft":
            ink = _spread_ink(ink, per * draws.uniform(0.2, 0.38), draws.uniform(0.38, 0.62))
    if code.name == "qr" and min(rows, columns) >= 25 and chance(draws, 0.1):
        _put_logo(draws, ink)
    found: Coverage = cv2.resize(ink, size, interpolation=cv2.INTER_AREA)
    return found


def print_code(draws: Draws, name: str, length: float, stock: Stock) -> Block:
    """A code of the class `name` on its piece of paper: `length` pixels long, with a quiet zone from none to wide."""
    code = draw_code(draws, name)
    ink = cover(draws, code, length)
    module = ink.shape[1] / code.modules.shape[1]
    inverted = not code.linear and name != "marker" and chance(draws, 0.08)
    if inverted:
        ink = 255 - ink
    quiet = pick(draws, (((0.0, 0.01), 2.0), ((0.3, 2.0), 3.5), ((2.0, 6.0), 3.5), ((6.0, 12.0), 1.0)))
    margin = min(draws.uniform(*quiet) * module, 0.6 * length)
    # Inverted codes without a dark margin would lose their outline, and markers need a light rim to be ones.
    side = max(1, round(max(margin, module))) if name == "marker" or inverted else round(margin)
    place = Place(name, (side, side, side + ink.shape[1], side + ink.shape[0]), module)
    sheet = cv2.copyMakeBorder(ink, side, side, side, side, cv2.BORDER_CONSTANT, value=255 * inverted)
    if code.linear and chance(draws, 0.7):
        sheet = _write_digits(draws, sheet, code, place)
    return Block(dye(sheet, stock), (place,))


def dye(ink: Coverage, stock: Stock) -> Pixels:
    """Coverage as pixels: paper where there is none, ink where it is full."""
    ramp = np.linspace(stock.paper, stock.ink, 256).round().astype(np.uint8)
    found: Pixels = cv2.LUT(cv2.cvtColor(ink, cv2.COLOR_GRAY2BGR), ramp.reshape(1, 256, 3))
    return found


# A Micro QR code has one finder and is never drawn as dots.
_LEAST_DOTTED_QR = 21

_STYLES = {
    "qr": (("plain", 6.0), ("soft", 3.0), ("dots", 0.8)),
    "datamatrix": (("plain", 4.5), ("soft", 3.5), ("dots", 2.0)),
    "marker": (("plain", 8.0), ("soft", 2.0)),
}


def _cover_bars(draws: Draws, code: Code, length: float) -> Coverage:
    columns = code.modules.shape[1]
    width = max(8, round(length))
    # Mostly as high as shops have them, down to strips and up to fences.
    share = pick(draws, (((0.45, 0.8), 4.0), ((0.2, 0.45), 4.0), ((0.08, 0.2), 1.5), ((0.8, 1.3), 0.6)))
    height = max(5, round(width * draws.uniform(*share)))
    per = int(np.clip(np.ceil(3 * width / columns), 4, 16))

    def row(modules: NDArray[np.uint8], spread: float) -> Coverage:
        wide = np.repeat(modules.reshape(1, -1), per, axis=1) * np.uint8(255)
        if spread:
            wide = _spread_ink(np.repeat(wide, 3, axis=0), per * 0.3, 0.5 - spread)[1:2]
        found: Coverage = cv2.resize(wide, (width, 1), interpolation=cv2.INTER_AREA)
        return found

    spread = float(draws.uniform(-0.3, 0.3)) if chance(draws, 0.4) else 0.0
    ink = np.repeat(row(code.modules, spread), height, axis=0)
    if code.guards is not None and chance(draws, 0.75):
        longer = max(1, round(5 * width / columns))
        ink = np.concatenate([ink, np.repeat(row(code.guards, spread), longer, axis=0)])
    return ink


def _cover_dots(draws: Draws, code: Code, per: int) -> Coverage:
    """Modules as dots, as lasers and needles mark metal, and as designers draw QR codes, whose finders stay whole."""
    per = max(per, 6)
    radius = draws.uniform(0.36, 0.54) * per
    across = np.arange(per) - (per - 1) / 2
    disc = np.clip(radius + 0.5 - np.hypot(across[:, None], across), 0, 1)
    ink = np.kron(code.modules, (disc * 255).astype(np.uint8))
    if code.name == "qr":
        whole = np.kron(code.modules, np.full((per, per), 255, np.uint8))
        for rows, columns in (
            (slice(0, 7 * per), slice(0, 7 * per)),
            (slice(0, 7 * per), slice(-7 * per, None)),
            (slice(-7 * per, None), slice(0, 7 * per)),
        ):
            ink[rows, columns] = whole[rows, columns]
    return np.ascontiguousarray(ink)


def _spread_ink(ink: Coverage, sigma: float, level: float) -> Coverage:
    """Ink that ran (`level` < 0.5) or shrank, with rounded corners: blurred, then cut at `level` with a soft edge."""
    blurred = cv2.GaussianBlur(ink, (0, 0), max(sigma, 0.3))
    ramp = np.clip((np.arange(256) / 255 - level) * 6 + 0.5, 0, 1) * 255
    found: Coverage = cv2.LUT(blurred, ramp.astype(np.uint8))
    return found


def _put_logo(draws: Draws, ink: Coverage) -> None:
    height, width = ink.shape
    half = int(min(height, width) * draws.uniform(0.08, 0.13))
    x, y = width // 2, height // 2
    cv2.rectangle(ink, (x - half, y - half), (x + half, y + half), 0, -1)
    inner = max(1, int(half * draws.uniform(0.5, 0.9)))
    grey = int(draws.integers(60, 256))
    if chance(draws, 0.5):
        cv2.circle(ink, (x, y), inner, grey, -1 if chance(draws, 0.6) else max(1, inner // 3), cv2.LINE_AA)
    else:
        cv2.rectangle(
            ink, (x - inner, y - inner), (x + inner, y + inner), grey, -1 if chance(draws, 0.5) else max(1, inner // 3)
        )


def _write_digits(draws: Draws, sheet: Coverage, code: Code, place: Place) -> Coverage:
    """The sheet with the code's digits below it (or above), which reach between the longer bars of shop codes."""
    left, _, right, bottom = map(int, place.rect)
    tall = max(5.0, (right - left) * log_uniform(draws, 0.05, 0.12))
    text = " ".join(code.digits) if chance(draws, 0.2) else code.digits
    line = write_line(draws, text, tall)
    if line.shape[1] > right - left:
        line = cv2.resize(
            line,
            (right - left, max(2, round(line.shape[0] * (right - left) / line.shape[1]))),
            interpolation=cv2.INTER_AREA,
        )
    gap = max(1, round(tall * draws.uniform(0.1, 0.4)))
    room = bottom + gap + line.shape[0] + max(1, round(tall * 0.3)) - sheet.shape[0]
    if room > 0:
        sheet = cv2.copyMakeBorder(sheet, 0, room, 0, 0, cv2.BORDER_CONSTANT, value=0)
    start = left + (right - left - line.shape[1]) // 2
    sheet[bottom + gap : bottom + gap + line.shape[0], start : start + line.shape[1]] = line
    return sheet
