"""Scenes of machine-readable codes with their truth, each a function of its seed.

A scene is drawn as it happens: a background, prints with and without codes on it, bent, turned and projected, perhaps a finger
before them, then a photograph of it all. The truth follows the points of a code's edge through the same geometry.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from detectors.training.backgrounds import draw_background, draw_screen
from detectors.training.canvas import FINER, Canvas, Pose, lay, overlap
from detectors.training.dataset import Label
from detectors.training.draws import Draws, chance, colour, log_uniform, pick
from detectors.training.layouts import Print, print_bare, print_direct, print_distractor, print_label, print_sheet
from detectors.training.photography import Blur, encode, photograph
from detectors.training.surfaces import Shape, draw_shape
from detectors.training.textures import Pixels


@dataclass(frozen=True, slots=True)
class ScenePolicy:
    """What scenes are like. `size`: pixels of the longer side; `hard`: bends, glare, cuts and look-alikes more often."""

    size: int = 512
    hard: bool = False
    photographs: Sequence[Pixels] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture as JPEG, and the codes in it."""

    jpeg: bytes
    width: int
    height: int
    labels: tuple[Label, ...]


def draw_scene(seed: Sequence[int], policy: ScenePolicy) -> Scene:
    """The scene of a seed: whatever order and process it is drawn in, it is the same."""
    draws = np.random.default_rng(seed)
    kind = pick(draws, ((_draw_photograph, 0.79), (_draw_screen_grab, 0.08), (_draw_close_up, 0.13)))
    canvas, crisp = kind(draws, policy)
    picture = canvas.pixels
    if not crisp:
        blur = Blur(canvas.mild, canvas.strong)
        picture = photograph(draws, picture, blur, 1.7 if policy.hard else 1.0)
    return Scene(encode(draws, picture, crisp), canvas.width, canvas.height, tuple(canvas.labels))


def _draw_photograph(draws: Draws, policy: ScenePolicy) -> tuple[Canvas, bool]:
    width, height = _frame(draws, policy.size)
    canvas = Canvas(draw_background(draws, width, height, policy.photographs), draws, policy.hard)
    codes = int(pick(draws, ((0, 0.14), (1, 0.36), (2, 0.22), (3, 0.15), (5, 0.09), (8, 0.04))))
    busy = 1.6 if policy.hard else 1.0
    fakes = int(draws.poisson(busy * (2.6 if codes == 0 else 1.1)))
    todo = [True] * codes + [False] * fakes
    for is_code in draws.permutation(todo) if todo else ():
        if is_code:
            _add_code(canvas)
        else:
            _add_distractor(canvas)
    if chance(draws, 0.25 if policy.hard else 0.1):
        _cover_partly(canvas)
    return canvas, False


def _draw_screen_grab(draws: Draws, policy: ScenePolicy) -> tuple[Canvas, bool]:
    width, height = _frame(draws, policy.size)
    canvas = Canvas(draw_screen(draws, width, height), draws, policy.hard)
    for _ in range(int(draws.integers(0, 4))):
        length = log_uniform(draws, 30, 0.8 * min(width, height))
        centre = round(draws.uniform(0.15, 0.85) * width), round(draws.uniform(0.15, 0.85) * height)
        if chance(draws, 0.25):
            lay(canvas, print_distractor(draws, length), Pose(centre, 0, 0, finer=1.0))
        else:
            lay(canvas, print_bare(draws, _name(draws), length), Pose(centre, 0, 0, finer=1.0))
    return canvas, chance(draws, 0.7)


def _draw_close_up(draws: Draws, policy: ScenePolicy) -> tuple[Canvas, bool]:
    """A code that fills the picture, or is its cut-out, with hardly anything around."""
    name = _name(draws)
    longer = int(policy.size * draws.uniform(0.4, 1))
    length = longer * draws.uniform(0.7, 1.06 if not policy.hard else 1.2)
    if name == "barcode":
        width, height = longer, max(64, int(longer * draws.uniform(0.25, 1)))
    else:
        width, height = longer, int(longer * draws.uniform(0.8, 1))
    if chance(draws, 0.3):
        width, height = height, width
    canvas = Canvas(draw_background(draws, width, height, policy.photographs), draws, policy.hard)
    turn = float(draws.choice([0, 0, 0, np.pi / 2, np.pi, -np.pi / 2])) + draws.normal(0, 0.05)
    if name == "barcode" and (width < height) != (abs(np.sin(turn)) > 0.7):
        turn += np.pi / 2
    piece = _piece(canvas, name, length * FINER)
    shape = draw_shape(draws, length * FINER, 0.12, 0.1)
    centre = width / 2 + draws.normal(0, 0.03) * width, height / 2 + draws.normal(0, 0.03) * height
    lay(canvas, piece, Pose(centre, turn, draws.choice([0, 0.1, 0.25]), shape))
    return canvas, chance(draws, 0.15)


def _add_code(canvas: Canvas) -> None:
    """One print with a code, or several, where there is room for it."""
    draws, least = canvas.draws, min(canvas.width, canvas.height)
    ranges = (
        ((14, 28), 0.04),
        ((24, 80), 0.22),
        ((80, 0.6 * least), 0.4),
        ((0.5 * least, 0.95 * least), 0.25),
        ((0.95 * least, 1.25 * least), 0.07),
    )
    length = log_uniform(draws, *pick(draws, ranges))
    name = _name(draws)
    for _ in range(3):
        bent, folded = (0.32, 0.22) if canvas.hard else (0.16, 0.12)
        pose = _pose(canvas, length, draw_shape(draws, length * FINER, bent, folded))
        if lay(canvas, _piece(canvas, name, length * FINER, pose.centre), pose):
            return
        length = min(max(length * draws.uniform(0.6, 2), 20), least)


def _add_distractor(canvas: Canvas) -> None:
    draws, least = canvas.draws, min(canvas.width, canvas.height)
    length = log_uniform(draws, 24, least * (1.3 if not canvas.labels else 0.6))
    pose = _pose(canvas, length, draw_shape(draws, length * FINER, 0.12, 0.12))
    lay(canvas, print_distractor(draws, length * FINER), pose)


def _piece(canvas: Canvas, name: str, length: float, centre: tuple[float, float] | None = None) -> Print:
    draws = canvas.draws
    kinds = (("bare", 0.34), ("direct", 0.16), ("label", 0.4), ("sheet", 0.1 if length < 260 else 0.02))
    kind = pick(draws, kinds)
    if kind == "direct":
        ground, uneven = _look(canvas, centre or (canvas.width / 2, canvas.height / 2), length / FINER)
        if uneven < 32:
            return print_direct(draws, name, length, ground)
        kind = "bare"
    if kind == "bare":
        return print_bare(draws, name, length)
    if kind == "sheet":
        return print_sheet(draws, name, length)
    more = int(pick(draws, ((0, 0.65), (1, 0.25), (2, 0.1))))
    return print_label(draws, [name] + [_name(draws) for _ in range(more)], length)


def _look(canvas: Canvas, centre: tuple[float, float], length: float) -> tuple[tuple[int, int, int], float]:
    """Mean colour and unevenness of what lies about `centre`."""
    half = max(4, int(length / 2))
    left, top = max(0, int(centre[0]) - half), max(0, int(centre[1]) - half)
    part = canvas.pixels[top : top + 2 * half, left : left + 2 * half]
    if not part.size:
        return (128, 128, 128), 99.0
    mean, spread = cv2.meanStdDev(part)
    return (int(mean[0, 0]), int(mean[1, 0]), int(mean[2, 0])), float(spread.max())


def _pose(canvas: Canvas, length: float, shape: Shape) -> Pose:
    draws = canvas.draws
    angle = float(draws.normal(0, 0.1))
    turned = pick(draws, (("upright", 0.42), ("quarter", 0.2), ("any", 0.38)))
    if turned == "quarter":
        angle += float(draws.integers(1, 4)) * np.pi / 2
    elif turned == "any":
        angle = float(draws.uniform(-np.pi, np.pi))
    tilt = float(pick(draws, ((0.0, 0.2), (0.2, 0.45), (0.45, 0.35))))
    cut = chance(draws, 0.3 if canvas.hard else 0.13)
    centre = tuple(_along(draws, side, length, cut) for side in (canvas.width, canvas.height))
    return Pose((centre[0], centre[1]), angle, tilt, shape)


def _along(draws: Draws, side: int, length: float, cut: bool) -> float:
    """Where the middle comes to lie: inside with its ends, as far as they fit; beyond where it is to be cut."""
    room = 0.02 * length if cut else min(length * draws.uniform(0.35, 0.6), side * 0.47)
    return float(draws.uniform(room, side - room)) if side > 2 * room else side / 2


def _cover_partly(canvas: Canvas) -> None:
    """A finger, a strip of tape or a scratch over a part of a code, at most a quarter of it."""
    draws = canvas.draws
    if not canvas.labels:
        return
    label = canvas.labels[int(draws.integers(len(canvas.labels)))]
    left, top, right, bottom = label.box
    short = min(right - left, bottom - top)
    turn = draws.uniform(0, 2 * np.pi)
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    towards = np.array([np.cos(turn), np.sin(turn)])
    rim = middle + towards * np.array([right - left, bottom - top]) * draws.uniform(0.3, 0.5)
    away = middle + towards * max(right - left, bottom - top) * 1.6
    thick = max(2, int(short * draws.uniform(0.1, 0.32)))
    reach = (
        min(rim[0], away[0]) - thick,
        min(rim[1], away[1]) - thick,
        max(rim[0], away[0]) + thick,
        max(rim[1], away[1]) + thick,
    )
    if any(other is not label and overlap(reach, other.box) for other in canvas.labels):
        return
    value = draws.uniform(70, 230)
    skin = (int(value * 0.6), int(value * 0.75), int(value))
    tone = skin if chance(draws, 0.6) else colour(draws, 0, 255, 0.8)
    ends = [tuple(map(int, point)) for point in (rim, away)]
    if chance(draws, 0.7):
        cv2.line(canvas.pixels, ends[0], ends[1], tone, thick, cv2.LINE_AA)
    else:
        film = canvas.pixels.copy()
        cv2.line(film, ends[0], ends[1], tone, thick, cv2.LINE_AA)
        canvas.pixels[:] = cv2.addWeighted(canvas.pixels, 0.5, film, 0.5, 0)


def _frame(draws: Draws, size: int) -> tuple[int, int]:
    shape = pick(draws, (("square", 0.5), ("wide", 0.27), ("tall", 0.23)))
    short = int(size * float(pick(draws, ((0.75, 0.7), (0.5625, 0.15), (0.6667, 0.15)))))
    return (size, size) if shape == "square" else (size, short) if shape == "wide" else (short, size)


def _name(draws: Draws) -> str:
    return pick(draws, (("qr", 0.29), ("datamatrix", 0.27), ("barcode", 0.3), ("marker", 0.14)))
