"""What codes are printed on: bare slips, labels and packages with text and figures around, sheets of many codes, and bare surfaces."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.training.codes import draw_code
from detectors.training.distractors import draw_distractor
from detectors.training.draws import Colour, Draws, chance, colour, log_uniform, pick
from detectors.training.lettering import Coverage, make_word, write_block, write_line
from detectors.training.prints import Block, Place, Stock, cover, dye, print_code
from detectors.training.textures import draw_texture

_LARGEST = 1500


@dataclass(frozen=True, slots=True)
class Print:
    """Something to lay into a picture. `texture`: BGR times opacity, and opacity, uint8 (height, width, 4); `places`: its codes in it.

    `anchor`: the point that the scene puts somewhere; `length`: pixels of the longest side of what it is about.
    """

    texture: NDArray[np.uint8]
    places: tuple[Place, ...]
    anchor: tuple[float, float]
    length: float


def draw_stock(draws: Draws) -> Stock:
    """Mostly dark on light, at times coloured, faint (25 grey levels apart), or light on dark."""
    # Mostly white or nearly so: what makes it darker is the light, later.
    lightness = pick(draws, (((215.0, 255.0), 0.62), ((120.0, 215.0), 0.38)))
    paper = colour(draws, *lightness, 0.1) if chance(draws, 0.78) else colour(draws, 90, 255, 0.7)
    ink = colour(draws, 0, 70, 0.3) if chance(draws, 0.8) else colour(draws, 20, 160, 0.9)
    light = _luma(paper)
    apart = draws.uniform(25, 60) if chance(draws, 0.07) else draws.uniform(55, 120)
    if light - _luma(ink) < apart:
        share = max(0.0, (light - apart) / max(1.0, light))
        ink = (int(paper[0] * share), int(paper[1] * share), int(paper[2] * share))
    return Stock(paper, ink)


def print_bare(draws: Draws, name: str, length: float) -> Print:
    """A code on its slip of paper."""
    return _about(print_code(draws, name, length, draw_stock(draws)), length)


def print_direct(draws: Draws, name: str, length: float, ground: Colour) -> Print:
    """A code right on the surface, whose mean colour is `ground`: printed, lasered or pecked, without paper."""
    code = draw_code(draws, name)
    ink = cover(draws, code, length)
    light = _luma(ground)
    apart = draws.uniform(30, 70) if chance(draws, 0.3) else draws.uniform(70, 160)
    lighter = light < 75 or (name == "datamatrix" and light < 185 and chance(draws, 0.45))
    target = min(255.0, light + apart) if lighter else max(0.0, light - apart)
    share = target / max(light, 1.0)
    shade = np.clip(np.array(ground) * share + (8 if lighter else 0), 0, 255) if light > 20 else np.full(3, target)
    # Ink of a light code on a dark surface is its light modules, unless it is inverted: which readers take too.
    if lighter and name in {"qr", "marker", "barcode"} and chance(draws, 0.7):
        margin = max(1, round(2 * ink.shape[1] / code.modules.shape[1]))
        ink = 255 - _pad(ink, margin)
    else:
        margin = 0
    opacity = cv2.convertScaleAbs(ink, alpha=draws.uniform(0.75, 1))
    texture = cv2.merge([cv2.convertScaleAbs(opacity, alpha=float(part) / 255) for part in shade] + [opacity])
    height, width = ink.shape
    module = (width - 2 * margin) / code.modules.shape[1]
    place = Place(name, (margin, margin, width - margin, height - margin), module)
    return Print(texture, (place,), (width / 2, height / 2), length)


def print_label(draws: Draws, names: list[str], length: float) -> Print:
    """A label or a side of a package: the first of `names` is `length` pixels long, with text, rules and figures, and the other codes."""
    stock = draw_stock(draws)
    outer = stock if chance(draws, 0.6) else Stock(colour(draws, 20, 255, 0.8), colour(draws, 0, 255, 0.8))
    rows = []
    for number, name in enumerate(names):
        block = print_code(draws, name, length * (1 if number == 0 else draws.uniform(0.4, 1.1)), stock)
        if chance(draws, 0.35):
            block = _beside(draws, block, _words(draws, block, length, outer), outer)
        rows.append(block)
    for _ in range(int(draws.integers(0, 4))):
        rows.insert(int(draws.integers(len(rows) + 1)), _furniture(draws, length, outer))
    label = rows[0]
    for row in rows[1:]:
        label = _below(draws, label, row, outer)
    label = _margin(label, max(1, int(length * draws.uniform(0, 0.25))), outer.paper)
    if chance(draws, 0.3):
        width, height = label.size
        cv2.rectangle(
            label.pixels, (1, 1), (width - 2, height - 2), outer.ink, max(1, int(length * draws.uniform(0.005, 0.04)))
        )
    return _about(label, length)


def print_sheet(draws: Draws, name: str, length: float) -> Print:
    """Several codes of one kind in rows and columns: rolls of stickers, lists, boards of markers."""
    stock = draw_stock(draws)
    columns, rows = (
        (1, int(draws.integers(2, 6))) if name == "barcode" else (int(draws.integers(2, 5)), int(draws.integers(1, 5)))
    )
    gap = max(2, int(length * draws.uniform(0.05, 0.4)))
    sheet: Block | None = None
    for _ in range(rows):
        line: Block | None = None
        for _ in range(columns):
            cell = _margin(print_code(draws, name, length, stock), gap, stock.paper)
            line = cell if line is None else _join(line, cell, 0, 0, stock.paper)
        assert line is not None
        sheet = line if sheet is None else _join(sheet, line, 1, 0, stock.paper)
    assert sheet is not None
    return _about(sheet, length)


def print_distractor(draws: Draws, length: float) -> Print:
    """A look-alike on paper, or alone on the surface."""
    stock = draw_stock(draws)
    if chance(draws, 0.3):
        stock = stock.inverted
    ink = draw_distractor(draws, length)
    if chance(draws, 0.3):
        ink = _pad(ink, int(length * draws.uniform(0.01, 0.2)))
    if chance(draws, 0.5):
        ink = np.ascontiguousarray(np.rot90(ink))
    if chance(draws, 0.35):
        texture = cv2.merge([cv2.convertScaleAbs(ink, alpha=part / 255) for part in stock.ink] + [ink])
        return Print(texture, (), (ink.shape[1] / 2, ink.shape[0] / 2), length)
    return replace(_about(Block(dye(ink, stock)), length), length=length)


def blank(piece: Print, place: Place) -> Print:
    """The print without the code at `place`, whose ground stays."""
    left, top, right, bottom = (int(value) for value in place.rect)
    texture = piece.texture.copy()
    around = texture[max(0, top - 1), max(0, left - 1)]
    texture[max(0, top - 1) : bottom + 2, max(0, left - 1) : right + 2] = around
    return replace(piece, texture=texture, places=tuple(other for other in piece.places if other is not place))


def _about(block: Block, length: float) -> Print:
    """A print of a block, turned about its first code, and no larger than a picture can show."""
    width, height = block.size
    left, top, right, bottom = block.places[0].rect if block.places else (0, 0, width, height)
    x, y = (left + right) / 2, (top + bottom) / 2
    pixels, places = block.pixels, block.places
    if max(width, height) > _LARGEST:
        first, last = int(max(0, x - _LARGEST / 2)), int(max(0, y - _LARGEST / 2))
        pixels = pixels[last : last + _LARGEST, first : first + _LARGEST]
        # Codes that are cut by the crop are partly gone from the print: the scene blanks what it cannot see whole.
        places = tuple(_moved(place, -first, -last) for place in places)
        x, y = x - first, y - last
        places = tuple(
            p
            for p in places
            if p.rect[2] > 0 and p.rect[3] > 0 and p.rect[0] < pixels.shape[1] and p.rect[1] < pixels.shape[0]
        )
    return Print(cv2.cvtColor(pixels, cv2.COLOR_BGR2BGRA), places, (x, y), length)


def _furniture(draws: Draws, length: float, stock: Stock) -> Block:
    """Text, a rule or a figure of a label."""
    kind = draws.random()
    if kind < 0.35:
        ink: Coverage = write_line(draws, make_word(draws), length * log_uniform(draws, 0.06, 0.4))
    elif kind < 0.7:
        tall = length * log_uniform(draws, 0.035, 0.12)
        ink = write_block(draws, int(draws.integers(2, 7)), max(5, tall), int(length * draws.uniform(0.6, 1.8)))
    elif kind < 0.8:
        ink = np.full((max(1, int(length * 0.015)), int(length * draws.uniform(0.7, 1.3))), 255, np.uint8)
    elif kind < 0.93:
        ink = draw_distractor(draws, length * draws.uniform(0.2, 0.8))
    else:
        wide, tall_px = int(length * draws.uniform(0.6, 1.6)), int(length * draws.uniform(0.3, 1))
        return Block(draw_texture(draws, max(16, wide), max(16, tall_px)))
    return Block(dye(ink, stock))


def _words(draws: Draws, block: Block, length: float, stock: Stock) -> Block:
    tall = max(5.0, length * log_uniform(draws, 0.04, 0.15))
    lines = max(1, int(block.size[1] * draws.uniform(0.3, 0.9) / tall / 1.6))
    return Block(dye(write_block(draws, min(lines, 10), tall, int(length * draws.uniform(0.4, 1.2))), stock))


def _beside(draws: Draws, first: Block, second: Block, stock: Stock) -> Block:
    gap = int(draws.uniform(0.02, 0.2) * first.size[0])
    pair = (first, second) if chance(draws, 0.5) else (second, first)
    return _join(*pair, 0, gap, stock.paper)


def _below(draws: Draws, first: Block, second: Block, stock: Stock) -> Block:
    return _join(first, second, 1, int(draws.uniform(0.01, 0.15) * first.size[0]), stock.paper)


def _join(first: Block, second: Block, axis: int, gap: int, paper: Colour) -> Block:
    """Two blocks beside (`axis` 0) or below (1) each other, aligned at their left or upper edge."""
    (wide, tall), (wide2, tall2) = first.size, second.size
    size = (wide + gap + wide2, max(tall, tall2)) if axis == 0 else (max(wide, wide2), tall + gap + tall2)
    left, top = (wide + gap, 0) if axis == 0 else (0, tall + gap)
    pixels = cv2.copyMakeBorder(first.pixels, 0, size[1] - tall, 0, size[0] - wide, cv2.BORDER_CONSTANT, value=paper)
    pixels[top : top + tall2, left : left + wide2] = second.pixels
    return Block(pixels, first.places + tuple(_moved(place, left, top) for place in second.places))


def _pad(ink: Coverage, width: int) -> Coverage:
    padded: Coverage = cv2.copyMakeBorder(ink, width, width, width, width, cv2.BORDER_CONSTANT, value=0)
    return padded


def _margin(block: Block, width: int, paper: Colour) -> Block:
    pixels = cv2.copyMakeBorder(block.pixels, width, width, width, width, cv2.BORDER_CONSTANT, value=paper)
    return Block(pixels, tuple(_moved(place, width, width) for place in block.places))


def _moved(place: Place, x: float, y: float) -> Place:
    left, top, right, bottom = place.rect
    return replace(place, rect=(left + x, top + y, right + x, bottom + y))


def _luma(value: Colour) -> float:
    return 0.114 * value[0] + 0.587 * value[1] + 0.299 * value[2]
