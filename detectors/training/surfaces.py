"""How a flat print comes to lie in a picture: crumpled, bent round a cylinder, turned in space and projected.

Coordinates are continuous: a pixel's centre is at one half. The way back (picture to print) is what pixels are drawn by, and the
way forth is what the truth follows; the crumpling alone has no formula forth, and is inverted by iteration.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.training.draws import Draws, chance

Points = NDArray[np.float64]
"""(n, 2): x, y."""

_STEP = 8
_FAR = -1e4
_STEEPEST = 1.35
_PAST_HORIZON = 60.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The bends of a print. `radius`: of the cylinder in the print's pixels, None where it is flat; `across`: the axis that is bent.

    `slant`: how much its rings show as arcs. `folds`: displacement at a grid of points, float64 (rows, columns, 2), over `span` pixels.
    """

    radius: float | None = None
    across: int = 0
    slant: float = 0.0
    folds: NDArray[np.float32] | None = None
    span: float = 1.0


@dataclass(frozen=True, slots=True)
class Surface:
    """Where a print lies. `anchor`: the point of the print that all turns about; `matrix`: projective, from print to picture."""

    anchor: tuple[float, float]
    shape: Shape
    matrix: NDArray[np.float64]

    def forth(self, points: Points) -> Points:
        """Points of the print in the picture."""
        flat = points - self.anchor
        if self.shape.folds is not None:
            flat = self._unfold(flat)
        return _project(self.matrix, _bend(self.shape, flat))

    def back(self, points: Points) -> Points:
        """Points of the picture on the print; far away where they miss it."""
        flat = _unbend(self.shape, _project(np.asarray(np.linalg.inv(self.matrix), np.float64), points))
        if self.shape.folds is not None:
            flat = flat + _displacement(self.shape, flat)
        return flat + self.anchor

    def turned_away(self, points: Points) -> bool:
        """Whether one of these points of the print is round the bend, or too steep to be seen."""
        if self.shape.radius is None:
            return False
        reach = np.abs(points[:, self.shape.across] - self.anchor[self.shape.across]) / self.shape.radius
        return bool(reach.max() > _STEEPEST)

    def draw(self, texture: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        """The print's texture as it looks in `box` (left, top, right, bottom) of the picture; zeros where it is not."""
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        # The maps are smooth: exact at every eighth pixel, straight in between.
        columns, rows = (width + _STEP - 1) // _STEP + 2, (height + _STEP - 1) // _STEP + 2
        x, y = np.meshgrid(np.arange(columns) * _STEP + left + 0.5, np.arange(rows) * _STEP + top + 0.5)
        found = self.back(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(rows, columns, 2) - 0.5
        found = np.where(found < _FAR / 2, _FAR, found).astype(np.float32)
        finer = np.array([[1 / _STEP, 0, 0], [0, 1 / _STEP, 0]])
        maps = cv2.warpAffine(found, finer, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        drawn: NDArray[np.uint8] = cv2.remap(texture, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return drawn

    def _unfold(self, flat: Points) -> Points:
        found = flat
        for _ in range(6):
            found = flat - _displacement(self.shape, found)
        return found


def draw_shape(draws: Draws, length: float, bent: float, folded: float) -> Shape:
    """Bends for a print whose code is `length` pixels long: a cylinder in the share `bent` of the cases, folds in the share `folded`."""
    radius, across, slant = None, 0, 0.0
    if chance(draws, bent):
        radius = length / 2 / draws.uniform(0.25, 1.15)
        across, slant = int(chance(draws, 0.3)), float(draws.normal(0, 0.2))
    if not chance(draws, folded):
        return Shape(radius, across, slant)
    count = int(draws.integers(3, 7))
    # Folds stay gentler than a third of their distance, or the print would lie over itself.
    deep = draws.uniform(0.02, 0.09) * 3 * length / (count - 1)
    folds = draws.normal(0, deep, (count, count, 2)).clip(-2 * deep, 2 * deep).astype(np.float32)
    return Shape(radius, across, slant, folds, 3 * length)


def draw_matrix(draws: Draws, reach: float, angle: float, tilt: float) -> NDArray[np.float64]:
    """A projection about the origin that keeps its scale there: turned by `angle` and tilted about `tilt` radians.

    `reach`: the farthest point of the print from the origin, which stays before the camera.
    """
    lean, pitch = np.clip(draws.normal(0, tilt, 2), -1.05, 1.05)
    distance = reach * draws.uniform(1.6, 6)
    turn = _rotation(angle)
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_y = np.array([[np.cos(lean), 0, np.sin(lean)], [0, 1, 0], [-np.sin(lean), 0, np.cos(lean)]])
    pose = about_x @ about_y @ turn
    return np.array(
        [[pose[0, 0], pose[0, 1], 0], [pose[1, 0], pose[1, 1], 0], [pose[2, 0] / distance, pose[2, 1] / distance, 1]]
    )


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def _project(matrix: NDArray[np.float64], points: Points) -> Points:
    found = points @ matrix[:, :2].T + matrix[:, 2]
    depth = found[:, 2:]
    return np.where(depth > 0.05, found[:, :2] / np.maximum(depth, 0.05), _FAR)


def _bend(shape: Shape, flat: Points) -> Points:
    if shape.radius is None:
        return flat
    turn = np.clip(flat[:, shape.across] / shape.radius, -np.pi / 2, np.pi / 2)
    bent = flat.copy()
    bent[:, shape.across] = shape.radius * np.sin(turn)
    bent[:, 1 - shape.across] += shape.slant * shape.radius * (1 - np.cos(turn))
    return bent


def _unbend(shape: Shape, bent: Points) -> Points:
    if shape.radius is None:
        return bent
    sine = bent[:, shape.across] / shape.radius
    turn = np.arcsin(np.clip(sine, -1, 1))
    flat = bent.copy()
    # Past the horizon there is no print; the map goes on steeply, as between its points it is interpolated.
    flat[:, shape.across] = shape.radius * (turn + (sine - np.clip(sine, -1, 1)) * _PAST_HORIZON)
    flat[:, 1 - shape.across] -= shape.slant * shape.radius * (1 - np.cos(turn))
    return flat


def _displacement(shape: Shape, flat: Points) -> Points:
    """Bilinear between the grid's points; the grid spans `span` pixels about the anchor and goes on as at its rim."""
    assert shape.folds is not None
    last = shape.folds.shape[0] - 1
    place = np.clip((flat / shape.span + 0.5) * last, 0, last - 1e-6)
    low = place.astype(int)
    part = place - low
    x, y, right, down = low[:, 0], low[:, 1], part[:, :1], part[:, 1:]
    # Smoothed steps, so that folds have no creases.
    right, down = right * right * (3 - 2 * right), down * down * (3 - 2 * down)
    folds = shape.folds
    above = folds[y, x] * (1 - right) + folds[y, x + 1] * right
    below = folds[y + 1, x] * (1 - right) + folds[y + 1, x + 1] * right
    found: Points = above * (1 - down) + below * down
    return found
