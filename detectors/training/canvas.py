"""A scene while it is drawn: prints are laid into it, and the truth follows the points of their codes' edges through the same geometry."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.training.codes import NAMES
from detectors.training.dataset import Label
from detectors.training.draws import Draws
from detectors.training.layouts import Print, blank
from detectors.training.prints import Place
from detectors.training.surfaces import Points, Shape, Surface, draw_matrix
from detectors.training.textures import Pixels

FINER = 1.25
"""Pixels of a print for a pixel of the picture, where it faces the camera."""

_FLAT = Shape()
_LEAST_SEEN = 0.5
# Pixels of a module below which nobody could say what it is: it is not drawn then. Readers want two.
_LEAST_MODULE = {"qr": 1.1, "datamatrix": 1.2, "barcode": 0.75, "marker": 1.6}
_LEAST_SIDE = {"qr": 12.0, "datamatrix": 10.0, "barcode": 5.0, "marker": 10.0}
# Blur that a code stands, in modules: a little, and at most. A linear code's bars may melt into grey; squares should leave a hint.
_STANDS = {"qr": (0.7, 1.05), "datamatrix": (0.65, 0.95), "barcode": (0.8, 1.35), "marker": (0.75, 1.2)}


@dataclass(slots=True)
class Canvas:
    """A scene as far as it is drawn; its draws go on where the last part left off. `hard`: as of ScenePolicy.

    `mild` and `strong`: sigmas of blur, in pixels, that the codes laid so far stand easily, and just.
    """

    pixels: Pixels
    draws: Draws
    hard: bool
    labels: list[Label] = field(default_factory=list)
    mild: float = 3.0
    strong: float = 5.0

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[0])


@dataclass(frozen=True, slots=True)
class Pose:
    """How a print is laid. `centre`: of its first code, in pixels of the picture; `angle` and `tilt` (its spread) in radians.

    `finer`: pixels of the print for one of the picture.
    """

    centre: tuple[float, float]
    angle: float
    tilt: float
    shape: Shape = _FLAT
    finer: float = FINER


def lay(canvas: Canvas, piece: Print, pose: Pose) -> bool:
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
    if box is None or (wanted and not kept) or any(overlap(box, label.box) for label in canvas.labels):
        return False
    _compose(canvas.pixels, surface.draw(piece.texture, box), box)
    for place, label in kept:
        canvas.labels.append(label)
        mild, strong = _STANDS[place.name]
        module = _module(surface, place)
        canvas.mild, canvas.strong = min(canvas.mild, mild * module), min(canvas.strong, strong * module)
    return True


def overlap(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two boxes (left, top, right, bottom) share an area."""
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _surface(draws: Draws, piece: Print, pose: Pose) -> Surface:
    height, width = piece.texture.shape[:2]
    x, y = piece.anchor
    reach = float(np.hypot(max(x, width - x), max(y, height - y)))
    matrix = draw_matrix(draws, reach, pose.angle, pose.tilt) if pose.tilt or pose.angle else np.eye(3)
    grow = np.diag([1 / pose.finer, 1 / pose.finer, 1.0])
    move = np.array([[1, 0, pose.centre[0]], [0, 1, pose.centre[1]], [0, 0, 1.0]])
    if not (pose.tilt or pose.angle):  # a screen's pixels lie on pixels
        move[:2, 2] += np.array([width % 2, height % 2]) / 2
    return Surface(piece.anchor, pose.shape, move @ grow @ matrix)


def _truth(canvas: Canvas, piece: Print, surface: Surface, place: Place) -> Label | None:
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


def _bounds(canvas: Canvas, piece: Print, surface: Surface) -> tuple[int, int, int, int] | None:
    """The part of the picture that a print touches: left, top, right, bottom."""
    height, width = piece.texture.shape[:2]
    grid = np.stack(np.meshgrid(np.linspace(0, width, 9), np.linspace(0, height, 9)), axis=-1).reshape(-1, 2)
    seen = surface.forth(grid)
    low, high = np.floor(seen.min(axis=0)) - 1, np.ceil(seen.max(axis=0)) + 1
    left, top = max(0, int(low[0])), max(0, int(low[1]))
    right, bottom = min(canvas.width, int(high[0])), min(canvas.height, int(high[1]))
    return (left, top, right, bottom) if right - left > 3 and bottom - top > 3 else None


def _compose(pixels: Pixels, drawn: NDArray[np.uint8], box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    part = pixels[top:bottom, left:right]
    *colours, opacity = cv2.split(drawn)
    rest = cv2.bitwise_not(opacity)
    part[:] = cv2.add(cv2.merge(colours), cv2.multiply(part, cv2.cvtColor(rest, cv2.COLOR_GRAY2BGR), scale=1 / 255))
