"""Polygons: their area, their sense, and what a frame leaves of them."""

import pytest

from detectors.training.polygons import Outline, around, clip, clockwise, signed_area

SQUARE: Outline = ((10, 10), (30, 10), (30, 30), (10, 30))
# An L whose arms leave a frame of 20x20 to the right and below.
ELL: Outline = ((10, 10), (30, 10), (30, 14), (14, 14), (14, 30), (10, 30))


def test_area_and_sense() -> None:
    assert signed_area(SQUARE) == 400
    assert signed_area(SQUARE[::-1]) == -400
    assert clockwise(SQUARE) == SQUARE
    assert clockwise((SQUARE[0], SQUARE[3], SQUARE[2], SQUARE[1])) == SQUARE
    assert around(ELL) == (10, 10, 30, 30)


@pytest.mark.parametrize(
    ("outline", "frame", "area", "box"),
    [
        (SQUARE, (100, 100), 400, (10, 10, 30, 30)),
        (SQUARE, (20, 100), 200, (10, 10, 20, 30)),
        (SQUARE, (20, 15), 50, (10, 10, 20, 15)),
        (ELL, (20, 20), 64, (10, 10, 20, 20)),
        (((-10, 5), (5, -10), (20, 5), (5, 20)), (10, 10), 100, (0, 0, 10, 10)),
        # Two pieces of a U, joined along the frame.
        (((0, 0), (4, 0), (4, 20), (10, 20), (10, 0), (14, 0), (14, 24), (0, 24)), (100, 10), 80, (0, 0, 14, 10)),
    ],
)
def test_what_a_frame_leaves(outline: Outline, frame: tuple[int, int], area: float, box: tuple[float, ...]) -> None:
    for sense in (outline, outline[::-1]):
        left = clip(sense, frame)
        assert abs(signed_area(left)) == pytest.approx(area)
        assert around(left) == box


def test_nothing_is_left_of_what_is_elsewhere() -> None:
    assert clip(((-10, 0), (-5, 0), (-5, 5)), (10, 10)) == ()
