"""What lies behind the codes: surfaces, shelves, desks, pages of text, screens, photographs. uint8 BGR (height, width, 3)."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from detectors.training.distractors import draw_distractor
from detectors.training.draws import Draws, chance, colour, log_uniform, pick
from detectors.training.lettering import make_word, write_block, write_line
from detectors.training.prints import Stock, dye
from detectors.training.textures import Pixels, crop_grain, draw_texture, fractal, gradient, tint
from schemas.errors import ConfigurationError

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def read_photographs(folder: Path, largest: int = 1024) -> tuple[Pixels, ...]:
    """The pictures in `folder`, in the order of their names, none larger than `largest` pixels a side.

    Raises ConfigurationError where there is none, or one cannot be read.
    """
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise ConfigurationError(f"there is no picture in {folder}")
    found = []
    for file in files:
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if picture is None:
            raise ConfigurationError(f"cannot read the picture {file}")
        share = min(1.0, largest / max(picture.shape[:2]))
        found.append(cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA))
    return tuple(found)


def draw_background(draws: Draws, width: int, height: int, photographs: Sequence[Pixels] = ()) -> Pixels:
    """A background for a photograph; a part of one of `photographs` in a third of the cases where there are any."""
    if photographs and chance(draws, 0.33):
        return _crop(draws, width, height, photographs[int(draws.integers(len(photographs)))])
    return pick(draws, _KINDS)(draws, width, height)


def draw_screen(draws: Draws, width: int, height: int) -> Pixels:
    """A page on a screen: flat colours, bars, buttons, text."""
    ground = (255, 255, 255) if chance(draws, 0.6) else colour(draws, 10, 255, 0.2)
    screen = dye(np.zeros((height, width), np.uint8), Stock(ground, ground))
    ink = (0, 0, 0) if sum(ground) > 380 else (235, 235, 235)
    if chance(draws, 0.6):
        cv2.rectangle(screen, (0, 0), (width, int(height * draws.uniform(0.03, 0.15))), colour(draws, 20, 255, 0.8), -1)
    for _ in range(int(draws.integers(0, 8))):
        left, top = int(draws.integers(width)), int(draws.integers(height))
        if chance(draws, 0.3):
            right, bottom = left + int(draws.integers(20, 200)), top + int(draws.integers(8, 60))
            cv2.rectangle(
                screen, (left, top), (right, bottom), colour(draws, 40, 255, 0.8), -1 if chance(draws, 0.6) else 1
            )
        else:
            tall = draws.uniform(8, 26)
            lines = int(draws.integers(1, 9))
            paste(
                screen,
                dye(write_block(draws, lines, tall, int(draws.integers(60, 360))), Stock(ground, ink)),
                left,
                top,
            )
    return screen


def paste(picture: Pixels, piece: Pixels, left: int, top: int) -> None:
    """Lay `piece` onto `picture`, as far as it lies inside."""
    height, width = picture.shape[:2]
    first, above = max(0, -left), max(0, -top)
    part = piece[above : max(above, height - top), first : max(first, width - left)]
    if part.size:
        left, top = max(0, left), max(0, top)
        picture[top : top + part.shape[0], left : left + part.shape[1]] = part


def _surface(draws: Draws, width: int, height: int) -> Pixels:
    return draw_texture(draws, width, height)


def _desk(draws: Draws, width: int, height: int) -> Pixels:
    """A surface with things on it: sheets, boxes, lines and blobs."""
    desk = draw_texture(draws, width, height)
    for _ in range(int(draws.integers(1, 12))):
        centre = int(draws.integers(width)), int(draws.integers(height))
        sides = log_uniform(draws, 12, width * 0.8), log_uniform(draws, 12, width * 0.8)
        tone, kind = colour(draws, 5, 255, 0.8), draws.random()
        if kind < 0.5:
            corners = cv2.boxPoints((centre, sides, draws.uniform(0, 90))).astype(np.int32)
            cv2.fillPoly(desk, [corners], tone, cv2.LINE_AA)
            if chance(draws, 0.3):
                cv2.polylines(desk, [corners], True, colour(draws, 0, 255), int(draws.integers(1, 5)), cv2.LINE_AA)
        elif kind < 0.75:
            axes = max(1, int(sides[0] / 3)), max(1, int(sides[1] / 3))
            cv2.ellipse(desk, centre, axes, draws.uniform(0, 180), 0, 360, tone, -1, cv2.LINE_AA)
        else:
            end = int(draws.integers(width)), int(draws.integers(height))
            cv2.line(desk, centre, end, tone, int(log_uniform(draws, 1, 14)), cv2.LINE_AA)
    return desk


def _shelf(draws: Draws, width: int, height: int) -> Pixels:
    """Packages side by side, each with its colour, its words and its figure."""
    shelf = gradient(draws, width, height)
    top = -int(draws.integers(0, height // 3))
    while top < height:
        tall = int(draws.integers(max(30, height // 6), max(40, height // 2)))
        left = -int(draws.integers(0, 60))
        while left < width:
            wide = int(draws.integers(30, max(40, width // 2)))
            paste(shelf, _package(draws, wide, tall), left, top)
            left += wide + int(draws.integers(0, 6))
        top += tall + int(draws.integers(1, 24))
    return shelf


def _package(draws: Draws, width: int, height: int) -> Pixels:
    stock = Stock(colour(draws, 30, 255, 0.9), colour(draws, 0, 255, 0.9))
    side: Pixels = cv2.resize(
        np.clip(np.array(stock.paper) + draws.normal(0, 18, (2, 2, 3)), 0, 255).astype(np.uint8), (width, height)
    )
    for _ in range(int(draws.integers(0, 4))):
        if chance(draws, 0.7):
            tall = log_uniform(draws, 6, max(8, height / 4))
            ink = write_line(draws, make_word(draws), tall)
        else:
            ink = draw_distractor(draws, max(14, width * draws.uniform(0.2, 0.7)))
        left, top = int(draws.integers(-10, width)), int(draws.integers(-5, height))
        paste(side, dye(ink, stock), left, top)
    return side


def _page(draws: Draws, width: int, height: int) -> Pixels:
    """Printed matter: columns of text, headlines, tables, receipts."""
    paper = Stock(colour(draws, 150, 255, 0.12), colour(draws, 0, 90, 0.3))
    page = dye(np.zeros((height, width), np.uint8), paper)
    columns = int(draws.integers(1, 4))
    wide = width // columns
    tall = log_uniform(draws, 5, 24)
    for column in range(columns):
        top = int(draws.integers(-10, 60))
        while top < height:
            if chance(draws, 0.15):
                ink = write_line(draws, make_word(draws), tall * draws.uniform(1.3, 3))
            elif chance(draws, 0.12):
                ink = draw_distractor(draws, wide * draws.uniform(0.3, 0.95))
            else:
                ink = write_block(draws, int(draws.integers(2, 12)), tall, int(wide * 0.93))
            paste(page, dye(ink, paper), column * wide + 4, top)
            top += ink.shape[0] + int(tall * draws.uniform(0.5, 3))
    if chance(draws, 0.5):
        found: Pixels = cv2.add(
            page, cv2.merge([crop_grain(draws, width, height)] * 3) * draws.uniform(1, 5), dtype=cv2.CV_8U
        )
        return found
    return page


def _tiled(draws: Draws, width: int, height: int) -> Pixels:
    """A regular pattern as far as one sees: a facade, a fence, a floor, a fabric."""
    ink = draw_distractor(draws, max(width, height) * draws.uniform(1, 1.4))
    pattern = dye(ink, Stock(colour(draws, 30, 255, 0.6), colour(draws, 0, 255, 0.7)))
    pattern = cv2.resize(pattern, (width, height), interpolation=cv2.INTER_AREA)
    found: Pixels = cv2.addWeighted(pattern, 0.8, tint(draws, fractal(draws, width, height, 4), 25), 0.2, 0)
    return found


def _crop(draws: Draws, width: int, height: int, photograph: Pixels) -> Pixels:
    """A part of a photograph, turned, mirrored, tinted, enlarged."""
    rows, columns = photograph.shape[:2]
    scale = max(width / columns, height / rows) * log_uniform(draws, 1, 3)
    wide, tall = min(columns, int(width / scale)), min(rows, int(height / scale))
    left, top = int(draws.integers(columns - wide + 1)), int(draws.integers(rows - tall + 1))
    part = cv2.resize(photograph[top : top + tall, left : left + wide], (width, height), interpolation=cv2.INTER_LINEAR)
    if chance(draws, 0.5):
        part = cv2.flip(part, int(draws.integers(-1, 2)))
    if chance(draws, 0.4):
        part = cv2.addWeighted(
            part,
            draws.uniform(0.5, 0.9),
            cv2.merge([np.full((height, width), tone, np.uint8) for tone in colour(draws, 0, 255, 0.9)]),
            draws.uniform(0.1, 0.4),
            0,
        )
    return np.ascontiguousarray(part)


_KINDS = (
    (_surface, 4.0),
    (_desk, 3.0),
    (_shelf, 1.6),
    (_page, 1.8),
    (_tiled, 0.7),
)
