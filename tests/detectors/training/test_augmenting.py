"""Copies of pictures: boxes follow the pixels, seeds repeat, and only what is trained on is copied."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.training.augmenting import AugmentPolicy, augment, augment_dataset
from detectors.training.dataset import Dataset, Label
from detectors.training.folders import read_splits
from detectors.training.recipe import AugmentationPlan
from schemas.errors import ConfigurationError
from tests.support.datasets import BOX, draw_dataset

PLAIN = AugmentationPlan(light=0, grey=0, invert=0, blur=0, noise=0, jpeg=0)
QUAD = ((30.0, 40.0), (70.0, 30.0), (80.0, 70.0), (40.0, 80.0))
STILL = AugmentPolicy(look=PLAIN, degrees=0, scale=(1, 1), shift=0, perspective=0, flip="none")


def draw(label: Label, side: int = 120) -> NDArray[np.uint8]:
    """A black picture with the object in white."""
    import cv2

    pixels = np.zeros((side, side, 3), np.uint8)
    left, top, right, bottom = label.box
    outline = label.outline or ((left, top), (right, top), (right, bottom), (left, bottom))
    # OpenCV counts from the centre of the first pixel, in sixteenths.
    points = ((np.array(outline) - 0.5) * 16).round().astype(np.int32)
    cv2.fillPoly(pixels, [points], (255, 255, 255), shift=4)
    return pixels


def white(pixels: NDArray[np.uint8]) -> tuple[float, ...]:
    rows, columns = np.nonzero(pixels[:, :, 0] > 180)
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def around_quad() -> Label:
    return Label((30, 30, 80, 80), 0, QUAD)


@pytest.mark.parametrize("seed", range(12))
def test_boxes_stay_tight_around_outlines(seed: int) -> None:
    policy = AugmentPolicy(look=PLAIN, degrees=180, flip="both", kept_share=0.2)
    pixels, [label] = augment(draw(around_quad()), [around_quad()], policy, np.random.default_rng(seed))
    assert label.box == pytest.approx(white(pixels), abs=1.6)
    assert len(label.outline) == 4


def test_a_mirrored_outline_begins_where_it_began_and_goes_clockwise() -> None:
    policy = AugmentPolicy(look=PLAIN, degrees=0, scale=(1, 1), shift=0, perspective=0, flip="horizontal")
    for seed in range(20):
        pixels, [label] = augment(draw(around_quad()), [around_quad()], policy, np.random.default_rng(seed))
        if label.outline[0] != pytest.approx(QUAD[0]):
            break
    assert np.array(label.outline) == pytest.approx(np.array([(90, 40), (80, 80), (40, 70), (50, 30)]))
    assert label.box == pytest.approx((40, 30, 90, 80))
    assert white(pixels) == pytest.approx(label.box, abs=1)


def test_nothing_moves_unless_it_is_asked_to() -> None:
    pixels = draw(Label(BOX, 0))
    changed, labels = augment(pixels, [Label(BOX, 0)], STILL, np.random.default_rng(0))
    assert (changed == pixels).all()
    assert labels == (Label(BOX, 0),)


def test_what_too_little_is_left_of_is_painted_over() -> None:
    gone = Label((0, 0, 45, 120), 0)
    policy = AugmentPolicy(look=PLAIN, degrees=0, scale=(3, 3), shift=0, perspective=0, flip="none", kept_share=0.9)
    # Three times as large around the centre, five of its columns are left.
    changed, labels = augment(draw(gone), [gone], policy, np.random.default_rng(0))
    assert labels == ()
    assert (changed[:, :15] == 114).all()
    assert not (changed > 180).any()


def test_crowds_follow_and_stay_crowds() -> None:
    _, labels = augment(draw(Label(BOX, 0)), [Label(BOX, 1, crowd=True)], STILL, np.random.default_rng(0))
    assert labels == (Label(BOX, 1, crowd=True),)


def test_the_set_and_its_copies_are_written_and_the_seed_repeats_them(tmp_path: Path) -> None:
    labels = {
        f"{number}.png": [Label(BOX, number % 2, ((10, 12), (40, 12), (40, 44), (10, 44)))] for number in range(3)
    }
    draw_dataset(tmp_path / "in", labels)
    splits = read_splits(tmp_path / "in")

    def run(out: str, seed: int) -> dict[str, bytes]:
        policy = AugmentPolicy(copies=2, seed=seed)
        [dataset] = augment_dataset(tmp_path / "in", splits, tmp_path / out, policy, "hardlink").values()
        assert dataset.names == ("cat", "dog")
        assert all(label.class_id == int(p.file.name[0]) % 2 for p in dataset.pictures for label in p.labels)
        return {str(p.file.relative_to(tmp_path / out / "images")): p.file.read_bytes() for p in dataset.pictures}

    first = run("first", 0)
    assert list(first) == [
        *("0.png", "1.png", "2.png"),
        *(f"augmented/{number}.png-{copy}.jpg" for number in range(3) for copy in (1, 2)),
    ]
    assert len(set(first.values())) == 9
    assert run("second", 0) == first
    other = run("third", 1)
    assert not {first[name] for name in first if "augmented" in name} & set(other.values())


def test_copies_of_copies_have_a_place_of_their_own(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "in", {"a.png": [Label(BOX, 0)]})
    once = augment_dataset(tmp_path / "in", read_splits(tmp_path / "in"), tmp_path / "1", STILL, "copy")
    twice = augment_dataset(tmp_path / "1", once, tmp_path / "2", STILL, "copy")
    names = [str(picture.file.relative_to(tmp_path / "2" / "images")) for picture in twice[""].pictures]
    assert names == [
        "a.png",
        "augmented/a.png-1.jpg",
        "augmented-2/a.png-1.jpg",
        "augmented-2/augmented/a.png-1.jpg-1.jpg",
    ]


def test_of_splits_only_train_gets_copies(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "val", "test")):
        draw_dataset(tmp_path / "in" / split, {f"{split}.png": [Label(BOX, 0)]}, first_seed=seed)
    done: dict[str, Dataset] = augment_dataset(
        tmp_path / "in", read_splits(tmp_path / "in"), tmp_path / "out", AugmentPolicy(copies=3), "copy"
    )
    assert {split: len(dataset.pictures) for split, dataset in done.items()} == {"train": 4, "val": 1, "test": 1}


def test_a_broken_picture_leaves_nothing_behind(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "in", {"a.png": [], "b.png": []})
    file = tmp_path / "in" / "images" / "b.png"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ConfigurationError, match=r"the picture b\.png cannot be read: .*data check"):
        augment_dataset(tmp_path / "in", read_splits(tmp_path / "in"), tmp_path / "out", AugmentPolicy(), "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
