"""Scenes of machine-readable codes with their truth, each a function of its seed.

A scene is drawn as it happens: a background, prints with and without codes on it, bent, turned and projected, perhaps a finger
before them, then a photograph of it all. The truth follows the points of a code's edge through the same geometry.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.training.backgrounds import draw_background, draw_screen
from detectors.training.codes import NAMES
from detectors.training.dataset import Label
from detectors.training.draws import Draws, chance, colour, log_uniform, pick
from detectors.training.layouts import (
    Print,
    blank,
    print_bare,
    print_direct,
    print_distractor,
    print_label,
    print_sheet,
)
from detectors.training.photography import Blur, encode, photograph
from detectors.training.prints import Place
from detectors.training.surfaces import Points, Shape, Surface, draw_matrix, draw_shape
from detectors.training.textures import Pixels

_FINER = 1.25
"""Pixels of a print for a pixel of the picture, where it faces the camera."""
_LEAST_SEEN = 0.5
_LEAST_MODULE = {"qr": 0.8, "datamatrix": 0.9, "barcode": 0.55, "marker": 1.4}
_LEAST_SIDE = {"qr": 12.0, "datamatrix": 10.0, "barcode": 5.0, "marker": 10.0}
# A linear code's bars may melt into grey; squares should leave a hint.
_STANDS = {"qr": (0.8, 1.35), "datamatrix": (0.75, 1.2), "barcode": (0.9, 1.7), "marker": (0.8, 1.3)}


_FLAT = Shape()


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


@dataclass(slots=True)
class _Canvas:
    """A scene as far as it is drawn. `taken`: boxes that nothing may cover any more; `blur`: what its codes stand."""

    pixels: Pixels
    draws: Draws
    policy: ScenePolicy
    labels: list[Label] = field(default_factory=list)
    mild: float = 3.0
    strong: float = 5.0

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]


@dataclass(frozen=True, slots=True)
class _Pose:
    centre: tuple[float, float]
    angle: float
    tilt: float
    shape: Shape = _FLAT
    finer: float = _FINER


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


def _draw_photograph(draws: Draws, policy: ScenePolicy) -> tuple[_Canvas, bool]:
    width, height = _frame(draws, policy.size)
    canvas = _Canvas(draw_background(draws, width, height, policy.photographs), draws, policy)
    codes = int(pick(draws, ((0, 0.1), (1, 0.4), (2, 0.22), (3, 0.15), (5, 0.09), (8, 0.04))))
    busy = 1.6 if policy.hard else 1.0
    fakes = int(draws.poisson(busy * (2.2 if codes == 0 else 0.8)))
    todo = [True] * codes + [False] * fakes
    for is_code in draws.permutation(todo) if todo else ():
        if is_code:
            _add_code(canvas)
        else:
            _add_distractor(canvas)
    if chance(draws, 0.25 if policy.hard else 0.1):
        _cover_partly(canvas)
    return canvas, False


def _draw_screen_grab(draws: Draws, policy: ScenePolicy) -> tuple[_Canvas, bool]:
    width, height = _frame(draws, policy.size)
    canvas = _Canvas(draw_screen(draws, width, height), draws, policy)
    for _ in range(int(draws.integers(0, 4))):
        length = log_uniform(draws, 30, 0.8 * min(width, height))
        centre = round(draws.uniform(0.15, 0.85) * width), round(draws.uniform(0.15, 0.85) * height)
        if chance(draws, 0.25):
            _lay(canvas, print_distractor(draws, length), _Pose(centre, 0, 0, finer=1.0))
        else:
            _lay(canvas, print_bare(draws, _name(draws), length), _Pose(centre, 0, 0, finer=1.0))
    return canvas, chance(draws, 0.7)


def _draw_close_up(draws: Draws, policy: ScenePolicy) -> tuple[_Canvas, bool]:
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
    canvas = _Canvas(draw_background(draws, width, height, policy.photographs), draws, policy)
    turn = float(draws.choice([0, 0, 0, np.pi / 2, np.pi, -np.pi / 2])) + draws.normal(0, 0.05)
    if name == "barcode" and (width < height) != (abs(np.sin(turn)) > 0.7):
        turn += np.pi / 2
    piece = _piece(canvas, name, length * _FINER)
    shape = draw_shape(draws, length * _FINER, 0.12, 0.1)
    centre = width / 2 + draws.normal(0, 0.03) * width, height / 2 + draws.normal(0, 0.03) * height
    _lay(canvas, piece, _Pose(centre, turn, draws.choice([0, 0.1, 0.25]), shape))
    return canvas, chance(draws, 0.15)


def _add_code(canvas: _Canvas) -> None:
    """One print with a code, or several, where there is room for it."""
    draws, least = canvas.draws, min(canvas.width, canvas.height)
    ranges = (
        ((14, 28), 0.06),
        ((24, 80), 0.22),
        ((80, 0.6 * least), 0.4),
        ((0.5 * least, 0.95 * least), 0.25),
        ((0.95 * least, 1.25 * least), 0.07),
    )
    length = log_uniform(draws, *pick(draws, ranges))
    name = _name(draws)
    for _ in range(3):
        bent, folded = (0.32, 0.22) if canvas.policy.hard else (0.16, 0.12)
        pose = _pose(canvas, length, draw_shape(draws, length * _FINER, bent, folded))
        if _lay(canvas, _piece(canvas, name, length * _FINER, pose.centre), pose):
            return
        length = min(max(length * draws.uniform(0.6, 2), 20), least)


def _add_distractor(canvas: _Canvas) -> None:
    draws, least = canvas.draws, min(canvas.width, canvas.height)
    length = log_uniform(draws, 24, least * (1.3 if not canvas.labels else 0.6))
    pose = _pose(canvas, length, draw_shape(draws, length * _FINER, 0.12, 0.12))
    _lay(canvas, print_distractor(draws, length * _FINER), pose)


def _piece(canvas: _Canvas, name: str, length: float, centre: tuple[float, float] | None = None) -> Print:
    draws = canvas.draws
    kinds = (("bare", 0.34), ("direct", 0.16), ("label", 0.4), ("sheet", 0.1 if length < 260 else 0.02))
    kind = pick(draws, kinds)
    if kind == "direct":
        ground, uneven = _look(canvas, centre or (canvas.width / 2, canvas.height / 2), length / _FINER)
        if uneven < 32:
            return print_direct(draws, name, length, ground)
        kind = "bare"
    if kind == "bare":
        return print_bare(draws, name, length)
    if kind == "sheet":
        return print_sheet(draws, name, length)
    more = int(pick(draws, ((0, 0.65), (1, 0.25), (2, 0.1))))
    return print_label(draws, [name] + [_name(draws) for _ in range(more)], length)


def _look(canvas: _Canvas, centre: tuple[float, float], length: float) -> tuple[tuple[int, int, int], float]:
    """Mean colour and unevenness of what lies about `centre`."""
    half = max(4, int(length / 2))
    left, top = max(0, int(centre[0]) - half), max(0, int(centre[1]) - half)
    part = canvas.pixels[top : top + 2 * half, left : left + 2 * half]
    if not part.size:
        return (128, 128, 128), 99.0
    mean, spread = cv2.meanStdDev(part)
    return (int(mean[0, 0]), int(mean[1, 0]), int(mean[2, 0])), float(spread.max())


def _pose(canvas: _Canvas, length: float, shape: Shape) -> _Pose:
    draws = canvas.draws
    angle = float(draws.normal(0, 0.1))
    turned = pick(draws, (("upright", 0.42), ("quarter", 0.2), ("any", 0.38)))
    if turned == "quarter":
        angle += float(draws.integers(1, 4)) * np.pi / 2
    elif turned == "any":
        angle = float(draws.uniform(-np.pi, np.pi))
    tilt = float(pick(draws, ((0.0, 0.2), (0.2, 0.45), (0.45, 0.35))))
    cut = chance(draws, 0.3 if canvas.policy.hard else 0.13)
    centre = tuple(_along(draws, side, length, cut) for side in (canvas.width, canvas.height))
    return _Pose((centre[0], centre[1]), angle, tilt, shape)


def _along(draws: Draws, side: int, length: float, cut: bool) -> float:
    """Where the middle comes to lie: inside with its ends, as far as they fit; beyond where it is to be cut."""
    room = 0.02 * length if cut else min(length * draws.uniform(0.35, 0.6), side * 0.47)
    return float(draws.uniform(room, side - room)) if side > 2 * room else side / 2


def _lay(canvas: _Canvas, piece: Print, pose: _Pose) -> bool:
    """Put a print into the scene and its codes into the truth; not where it would cover a code, or has none that is seen."""
    surface = _surface(canvas.draws, piece, pose)
    wanted = bool(piece.places)
    kept: list[tuple[Place, Label]] = []
    for place in piece.places:
        label = _truth(canvas, piece, surface, place)
        if label is None:
            piece = blank(piece, place)
        else:
            kept.append((place, label))
    box = _bounds(canvas, piece, surface)
    if box is None or (wanted and not kept) or any(_overlap(box, label.box) for label in canvas.labels):
        return False
    _compose(canvas.pixels, surface.draw(piece.texture, box), box)
    for place, label in kept:
        canvas.labels.append(label)
        mild, strong = _STANDS[place.name]
        module = _module(surface, place)
        canvas.mild, canvas.strong = min(canvas.mild, mild * module), min(canvas.strong, strong * module)
    return True


def _surface(draws: Draws, piece: Print, pose: _Pose) -> Surface:
    height, width = piece.texture.shape[:2]
    x, y = piece.anchor
    reach = float(np.hypot(max(x, width - x), max(y, height - y)))
    matrix = draw_matrix(draws, reach, pose.angle, pose.tilt) if pose.tilt or pose.angle else np.eye(3)
    grow = np.diag([1 / pose.finer, 1 / pose.finer, 1.0])
    move = np.array([[1, 0, pose.centre[0]], [0, 1, pose.centre[1]], [0, 0, 1.0]])
    if not (pose.tilt or pose.angle):  # a screen's pixels lie on pixels
        move[:2, 2] += np.array([width % 2, height % 2]) / 2
    return Surface(piece.anchor, pose.shape, move @ grow @ matrix)


def _truth(canvas: _Canvas, piece: Print, surface: Surface, place: Place) -> Label | None:
    """The label of a code; None where it is too small, turned away, or mostly out of the picture."""
    height, width = piece.texture.shape[:2]
    left, top, right, bottom = place.rect
    inside = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    if (inside[2] - inside[0]) * (inside[3] - inside[1]) < _LEAST_SEEN * (right - left) * (bottom - top):
        return None
    edge = _edge(inside)
    if surface.turned_away(edge):
        return None
    seen = surface.forth(edge).astype(np.float32)
    if min(_sides(seen)) < _LEAST_SIDE[place.name] or _module(surface, place) < _LEAST_MODULE[place.name]:
        return None
    frame = np.array([[0, 0], [canvas.width, 0], [canvas.width, canvas.height], [0, canvas.height]], np.float32)
    hull = cv2.convexHull(seen)
    whole = cv2.contourArea(hull)
    area, part = cv2.intersectConvexConvex(hull, frame)
    if whole <= 0 or area < _LEAST_SEEN * whole or part is None:
        return None
    low, high = part.reshape(-1, 2).min(axis=0), part.reshape(-1, 2).max(axis=0)
    if min(high - low) < _LEAST_SIDE[place.name]:
        return None
    corners = seen[:: len(seen) // 4]
    box = (
        float(max(low[0], 0)),
        float(max(low[1], 0)),
        float(min(high[0], canvas.width)),
        float(min(high[1], canvas.height)),
    )
    return Label(box, NAMES.index(place.name), tuple((float(x), float(y)) for x, y in corners))


def _edge(rect: tuple[float, float, float, float]) -> Points:
    """Points along the edge, clockwise from the upper left corner, as many on each side."""
    left, top, right, bottom = rect
    steps = np.linspace(0, 1, 8, endpoint=False)
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    return np.concatenate(
        [
            start + steps[:, None] * (end - start)
            for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True)
        ]
    )


def _sides(seen: NDArray[np.float32]) -> tuple[float, float]:
    """Lengths across and down of a code's outline as `_edge` gives it, the shorter of two each."""
    lengths = np.hypot(*(np.roll(seen, -1, axis=0) - seen).T).reshape(4, -1).sum(axis=1)
    return float(min(lengths[0], lengths[2])), float(min(lengths[1], lengths[3]))


def _module(surface: Surface, place: Place) -> float:
    """Pixels of the picture that the code's smallest module measures, where it is smallest."""
    left, top, right, bottom = place.rect
    across, down = _sides(surface.forth(_edge(place.rect)).astype(np.float32))
    shares = [across / (right - left)] if place.name == "barcode" else [across / (right - left), down / (bottom - top)]
    return place.module * min(shares)


def _bounds(canvas: _Canvas, piece: Print, surface: Surface) -> tuple[int, int, int, int] | None:
    """The part of the picture that a print touches: left, top, right, bottom."""
    height, width = piece.texture.shape[:2]
    grid = np.stack(np.meshgrid(np.linspace(0, width, 9), np.linspace(0, height, 9)), axis=-1).reshape(-1, 2)
    seen = surface.forth(grid)
    low, high = np.floor(seen.min(axis=0)) - 1, np.ceil(seen.max(axis=0)) + 1
    left, top = max(0, int(low[0])), max(0, int(low[1]))
    right, bottom = min(canvas.width, int(high[0])), min(canvas.height, int(high[1]))
    return (left, top, right, bottom) if right - left > 3 and bottom - top > 3 else None


def _overlap(first: Sequence[float], second: Sequence[float]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _compose(pixels: Pixels, drawn: NDArray[np.uint8], box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    part = pixels[top:bottom, left:right]
    *colours, opacity = cv2.split(drawn)
    rest = cv2.bitwise_not(opacity)
    part[:] = cv2.add(cv2.merge(colours), cv2.multiply(part, cv2.merge([rest] * 3), scale=1 / 255))


def _cover_partly(canvas: _Canvas) -> None:
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
    if any(other is not label and _overlap(reach, other.box) for other in canvas.labels):
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
    return pick(draws, (("qr", 0.3), ("datamatrix", 0.23), ("barcode", 0.32), ("marker", 0.15)))
