"""Scenes: what a seed promises, where the truth lies, and what no scene may do."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import zxingcpp

from detectors.training.canvas import Canvas, Pose, lay
from detectors.training.codes import NAMES
from detectors.training.layouts import print_bare
from detectors.training.scenes import Scene, ScenePolicy, draw_scene
from detectors.training.surfaces import draw_shape

SMALL = ScenePolicy(size=160)


def decode(scene: Scene) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(scene.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture)


def intersection_over_union(first: Sequence[float], second: Sequence[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def test_a_scene_is_a_function_of_its_seed() -> None:
    first, again, other = (draw_scene(seed, SMALL) for seed in ([1, 2, 3], [1, 2, 3], [1, 2, 4]))
    assert first == again
    assert first != other


@pytest.mark.parametrize("policy", [SMALL, ScenePolicy(size=160, hard=True), ScenePolicy(size=96)])
def test_truth_lies_in_the_frame(policy: ScenePolicy) -> None:
    labels = 0
    for number in range(15):
        scene = draw_scene([7, number], policy)
        assert decode(scene).shape[:2] == (scene.height, scene.width)
        assert max(scene.width, scene.height) <= policy.size
        for label in scene.labels:
            left, top, right, bottom = label.box
            assert 0 <= left < right <= scene.width
            assert 0 <= top < bottom <= scene.height
            assert min(right - left, bottom - top) >= 5
            assert len(label.outline) == 4
            labels += 1
    assert labels > 5


def test_pictures_of_the_largest_size_and_with_photographs() -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    for number in range(3):
        scene = draw_scene([3, number], ScenePolicy(size=1280, photographs=(photograph,)))
        assert max(scene.width, scene.height) <= 1280


def lay_one(seed: int, name: str, length: float, centre: tuple[float, float] = (160, 160)) -> Canvas:
    """A print with one code, slightly turned and tilted, on grey."""
    draws = np.random.default_rng(seed)
    canvas = Canvas(np.full((320, 320, 3), 140, np.uint8), draws, hard=False)
    lay(canvas, print_bare(draws, name, length * 1.25), Pose(centre, 0.1, 0.1, draw_shape(draws, length, 0.2, 0.2)))
    return canvas


def test_a_reader_finds_codes_where_the_truth_says() -> None:
    found = []
    for seed in range(24):
        canvas = lay_one(seed, NAMES[seed % 2], 210)
        for code in zxingcpp.read_barcodes(canvas.pixels):
            place = code.position
            corners = (place.top_left, place.top_right, place.bottom_right, place.bottom_left)
            xs, ys = [corner.x for corner in corners], [corner.y for corner in corners]
            (label,) = canvas.labels
            found.append(intersection_over_union(label.box, (min(xs), min(ys), max(xs), max(ys))))
    # Not all: some are faint, dotted, or without a quiet zone.
    assert len(found) >= 10
    assert min(found) > 0.85
    assert float(np.median(found)) > 0.95


def test_the_outline_begins_at_the_codes_own_upper_left_corner() -> None:
    draws = np.random.default_rng(5)
    canvas = Canvas(np.full((320, 320, 3), 140, np.uint8), draws, hard=False)
    lay(canvas, print_bare(draws, "qr", 200), Pose((160, 160), np.pi / 2, 0.0))
    (label,) = canvas.labels
    first, second, *_ = label.outline
    assert first[0] > 200  # turned by a quarter clockwise: the upper left corner came to the upper right
    assert first[1] < 120
    assert second[1] > 200


@pytest.mark.parametrize("centre", [(-60.0, 160.0), (160.0, 400.0), (900.0, 900.0)])
def test_a_code_that_is_mostly_out_of_the_picture_is_not_drawn(centre: tuple[float, float]) -> None:
    canvas = lay_one(3, "qr", 200, centre)
    assert not canvas.labels
    assert (canvas.pixels == 140).all()


def test_a_code_that_the_frame_cuts_has_the_box_of_what_is_seen() -> None:
    (label,) = lay_one(3, "marker", 200, (40, 160)).labels
    assert label.box[0] == 0
    assert min(x for x, _ in label.outline) < -20


def test_codes_too_small_to_tell_are_not_drawn() -> None:
    canvas = lay_one(4, "datamatrix", 7)
    assert not canvas.labels
    assert (canvas.pixels == 140).all()


def test_nothing_is_laid_over_a_code() -> None:
    canvas = lay_one(1, "qr", 150)
    before = canvas.pixels.copy()
    assert canvas.labels
    assert not lay(canvas, print_bare(canvas.draws, "barcode", 100), Pose((150, 150), 0.0, 0.0))
    assert (canvas.pixels == before).all()
    assert len(canvas.labels) == 1
