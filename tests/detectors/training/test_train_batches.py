"""Batches: a function of seed and step; boxes that stay with their objects; nothing left to see of what is not labelled."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.training.augmentation import calmed, compose
from detectors.training.batches import TrainingBatches, load
from detectors.training.dataset import Dataset, Label, Picture
from detectors.training.pictures import BrokenPictureError, read_sample
from detectors.training.placing import PAD, Sample, hide, place, turn
from detectors.training.recipe import AugmentationPlan
from tests.support.squares import draw_squares, tiny_recipe

NO_BOXES = np.empty((0, 4), np.float32)
PLAIN = AugmentationPlan(
    scale=(1, 1), flip=0, quarter_turns=0, mosaic=0, light=0, grey=0, invert=0, blur=0, noise=0, jpeg=0
)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_squares(tmp_path_factory.mktemp("squares"), 10)


def sample_with(box: tuple[int, int, int, int], width: int = 60, height: int = 40) -> Sample:
    """A black picture whose one object is white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return Sample(pixels, np.array([box], np.float32), np.zeros(1, np.int64), NO_BOXES)


def extent(pixels: NDArray[np.uint8]) -> list[int]:
    """Left, top, right, bottom of what is white."""
    rows, columns = np.nonzero(pixels[..., 0] > 200)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_boxes_turn_with_their_pictures(quarters: int, mirrored: bool) -> None:
    turned = turn(sample_with((5, 7, 25, 17)), quarters, mirrored=mirrored)
    assert turned.pixels.shape[:2] == ((60, 40) if quarters % 2 else (40, 60))
    assert turned.boxes[0].tolist() == extent(turned.pixels)


@settings(deadline=None)
@given(scale=st.floats(0.3, 3), seed=st.integers(0, 1000))
def test_boxes_land_where_their_pixels_land(scale: float, seed: int) -> None:
    canvas = np.full((96, 96, 3), PAD, np.uint8)
    placed = place(canvas, (8, 16, 88, 96), sample_with((20, 10, 44, 34)), scale, 0.0, np.random.default_rng(seed))
    assert (canvas[:16] == PAD).all()
    assert (canvas[:, :8] == PAD).all()
    assert (canvas[:, 88:] == PAD).all()
    for box in placed.boxes:
        if (box[2:] - box[:2]).min() > 6:
            assert np.abs(box - extent(canvas)).max() <= max(1.5, 1.5 * scale)


def test_what_is_mostly_cut_off_is_hidden() -> None:
    canvas = np.full((64, 64, 3), PAD, np.uint8)
    for seed in range(40):
        placed = place(canvas, (0, 0, 64, 64), sample_with((0, 0, 20, 20)), 3.0, 0.4, np.random.default_rng(seed))
        shown = hide(placed, np.random.default_rng(seed))
        assert len(shown.hidden) == 0
        white = int((canvas[..., 0] > 200).sum())
        if len(shown.boxes):
            left, top, right, bottom = shown.boxes[0]
            assert (right - left) * (bottom - top) >= 0.4 * 64 * 64 * 0.9
            assert white
        elif len(placed.hidden):
            covered = canvas[tuple(slice(int(a), int(b)) for a, b in placed.hidden[0].reshape(2, 2).T[::-1])]
            assert covered.max() - covered.min() <= 1


def test_hiding_spares_objects_that_are_kept() -> None:
    sample = sample_with((10, 10, 30, 30))
    hidden = replace(sample, hidden=np.array([[0, 0, 20, 20]], np.float32))
    shown = hide(hidden, np.random.default_rng(0))
    assert extent(shown.pixels) == [10, 10, 30, 30]


def test_without_augmentation_a_picture_is_letterboxed() -> None:
    composed = compose(
        sample_with((20, 10, 44, 34)), lambda: pytest.fail("no mosaic"), 60, PLAIN, np.random.default_rng(0)
    )
    assert composed.pixels.shape == (60, 60, 3)
    assert composed.boxes[0].tolist() == extent(composed.pixels)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_whatever_is_drawn_boxes_are_within_the_input(seed: int) -> None:
    plan = replace(AugmentationPlan(), mosaic=0.5, jpeg=0.5, noise=0.5, blur=0.5, grey=0.5, invert=0.5)
    first = sample_with((20, 10, 44, 34))
    composed = compose(first, lambda: first, 64, plan, np.random.default_rng(seed))
    assert composed.pixels.shape == (64, 64, 3)
    assert composed.pixels.dtype == np.uint8
    assert len(composed.boxes) == len(composed.class_ids)
    assert (composed.boxes[:, 2:] - composed.boxes[:, :2] >= 2).all()
    assert composed.boxes.min(initial=0) >= 0
    assert composed.boxes.max(initial=0) <= 64


def test_the_calm_end_of_a_run_has_pictures_as_they_are_met() -> None:
    calm = calmed(AugmentationPlan())
    assert (calm.mosaic, calm.noise, calm.jpeg, calm.grey) == (0, 0, 0, 0)
    assert 0.5 < calm.scale[0] < calm.scale[1] < 1.5


def test_a_batch_depends_on_seed_and_step_alone(squares: Dataset, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, steps=6)
    alone = [TrainingBatches(squares.pictures, recipe)[step] for step in (3, 5, 3)]
    assert bool((alone[0].pixels == alone[2].pixels).all())
    in_order = list(load(TrainingBatches(squares.pictures, recipe), range(3, 6), workers=0))
    for one, other in zip((alone[0], alone[1]), (in_order[0], in_order[2]), strict=True):
        assert bool((one.pixels == other.pixels).all())
        assert [t.boxes.tolist() for t in one.targets] == [t.boxes.tolist() for t in other.targets]
    another = TrainingBatches(squares.pictures, tiny_recipe(tmp_path, steps=6, seed=1))[3]
    assert another.pixels.shape != alone[0].pixels.shape or bool((another.pixels != alone[0].pixels).any())


def test_all_pictures_are_seen_before_one_is_seen_again(squares: Dataset, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe(tmp_path, steps=10, batch_size=5, image_sizes=(64,)), augmentation=PLAIN)
    batches = TrainingBatches(squares.pictures, recipe)
    for epoch in range(3):
        seen = {batches[2 * epoch + half].pixels[row].numpy().tobytes() for half in (0, 1) for row in range(5)}
        assert len(seen) == 10


def test_a_broken_picture_is_named_and_replaced(squares: Dataset, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(squares.pictures[0].file.read_bytes()[:300])
    bad = Picture(broken, 64, 64, (Label((0, 0, 9, 9), 0),))
    batch = TrainingBatches([bad, squares.pictures[1]], tiny_recipe(tmp_path, batch_size=2))[0]
    assert len(batch.targets) == 2
    assert any(str(broken) in message for message in batch.broken)
    nothing = TrainingBatches([bad], tiny_recipe(tmp_path, batch_size=1))[0]
    assert len(nothing.targets[0].class_ids) == 0


def test_a_picture_of_another_size_than_annotated_is_broken(squares: Dataset) -> None:
    with pytest.raises(BrokenPictureError, match="65x64 by its annotation, 64x64 in truth"):
        read_sample(replace(squares.pictures[0], width=65), 64)


def test_crowds_are_hidden_and_neither_train_nor_count(squares: Dataset) -> None:
    crowd = replace(squares.pictures[0], labels=(Label((0, 0, 64, 64), 0, crowd=True),))
    sample = read_sample(crowd, 64)
    assert len(sample.boxes) == 0
    assert sample.hidden.tolist() == [[0, 0, 64, 64]]
