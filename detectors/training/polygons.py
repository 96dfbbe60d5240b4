"""Outlines of objects: polygons of (x, y) in pixels, y pointing down."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

from detectors.training.dataset import Corners

Outline: TypeAlias = tuple[tuple[float, float], ...]


def around(outline: Sequence[tuple[float, float]]) -> Corners:
    """The box around a polygon."""
    across, down = [x for x, _ in outline], [y for _, y in outline]
    return min(across), min(down), max(across), max(down)


def signed_area(outline: Sequence[tuple[float, float]]) -> float:
    """In square pixels by the shoelace formula; positive where the polygon goes clockwise, as seen."""
    closed = (*outline, *outline[:1])
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in pairwise(closed)) / 2


def clockwise(outline: Outline) -> Outline:
    """The same polygon from the same point on, clockwise."""
    return outline if signed_area(outline) >= 0 else (outline[0], *outline[:0:-1])


def clip(outline: Sequence[tuple[float, float]], frame: tuple[int, int]) -> Outline:
    """The part of a polygon, convex or not, within a frame of (width, height); () where nothing is left.

    By Sutherland and Hodgman (1974): where several pieces are left, edges along the frame join them, which changes neither the area
    nor the box around them.
    """
    points = list(outline)
    for axis, size in enumerate(frame):
        for bound, sign in ((0.0, 1.0), (float(size), -1.0)):
            kept: list[tuple[float, float]] = []
            for before, point in zip([*points[-1:], *points[:-1]], points, strict=True):
                inside, was_inside = (sign * (p[axis] - bound) >= 0 for p in (point, before))
                if inside != was_inside:
                    kept.append(_cross(before, point, axis, bound))
                if inside:
                    kept.append(point)
            points = kept
    return tuple(points)


def _cross(start: tuple[float, float], end: tuple[float, float], axis: int, bound: float) -> tuple[float, float]:
    """Where a line from start to end has its coordinate `axis` at the bound."""
    share = (bound - start[axis]) / (end[axis] - start[axis])
    other = start[1 - axis] + share * (end[1 - axis] - start[1 - axis])
    return (other, bound) if axis else (bound, other)
