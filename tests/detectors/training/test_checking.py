"""Every defect of a data set is found, and a good one has none."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from detectors.policy import ImagePolicy
from detectors.training.checking import check_dataset
from detectors.training.checks_of_labels import check_labels
from detectors.training.dataset import Dataset, Label, Picture, write_dataset
from detectors.training.findings import CheckPolicy, CheckReport, Kind
from detectors.training.folders import read_splits
from schemas.errors import ConfigurationError
from tests.support.data import may_skip, shared_dir
from tests.support.datasets import BOX, HEIGHT, WIDTH, draw_dataset, save
from tests.support.images import encode, exif, photograph

BOTH = (Label(BOX, 0), Label((50.0, 5.0, 90.0, 60.0), 1))


def check(splits: dict[str, Dataset]) -> CheckReport:
    return check_dataset(splits, CheckPolicy(), ImagePolicy(decoders=1))


def kinds(labels: Sequence[Label]) -> list[Kind]:
    picture = Picture(Path("a.jpg"), WIDTH, HEIGHT, tuple(labels))
    return [kind for kind, _ in check_labels(picture, ("cat", "dog"), CheckPolicy())]


def test_a_good_set_has_no_findings(tmp_path: Path) -> None:
    draw_dataset(tmp_path, {"a.jpg": BOTH, "b.png": BOTH, "c.jpg": ()})
    report = check(read_splits(tmp_path))
    assert report.findings == ()
    assert report.pictures == {"": 3}
    assert report.without_objects == {"": 1}
    assert report.objects == {"": {"cat": 2, "dog": 2}}


def test_pictures_that_are_missing_broken_or_of_another_size(tmp_path: Path) -> None:
    draw_dataset(
        tmp_path, dict.fromkeys(("a.jpg", "cut.jpg", "gone.jpg", "other.jpg", "turned.jpg", "empty.jpg"), BOTH)
    )
    images = tmp_path / "images"
    (images / "cut.jpg").write_bytes((images / "cut.jpg").read_bytes()[:-200])
    (images / "gone.jpg").unlink()
    save(images / "other.jpg", photograph(90, 64, 64))
    (images / "turned.jpg").write_bytes(encode(photograph(91), "JPEG", exif=exif(6)))
    (images / "empty.jpg").write_bytes(b"")
    report = check(read_splits(tmp_path))
    assert {(finding.kind, finding.files[0].name) for finding in report.findings} == {
        (Kind.BROKEN_PICTURE, "cut.jpg"),
        (Kind.MISSING_PICTURE, "gone.jpg"),
        (Kind.SIZE_MISMATCH, "other.jpg"),
        (Kind.SIZE_MISMATCH, "turned.jpg"),
        (Kind.BROKEN_PICTURE, "empty.jpg"),
    }
    assert report.errors == 5


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (BOTH, []),
        ([Label((10, 10, 10, 20), 0)], [Kind.EMPTY_BOX]),
        ([Label((10, 10, 5, 20), 0)], [Kind.EMPTY_BOX]),
        ([Label((10, 10, float("nan"), 20), 0)], [Kind.EMPTY_BOX]),
        ([Label((80, 10, 97.5, 20), 0)], [Kind.BOX_BEYOND_FRAME]),
        ([Label((-0.5, -0.5, 96.5, 64.5), 0)], []),
        ([Label((10, 10, 13, 40), 0)], [Kind.TINY_BOX]),
        ([Label(BOX, 0), Label(BOX, 0)], [Kind.DOUBLE_BOX]),
        ([Label(BOX, 0), Label(BOX, 1)], [Kind.DOUBLE_BOX]),
        ([Label(BOX, 0), Label(BOX, 0, crowd=True)], []),
        ([Label(BOX, 0, ((10, 12), (40, 12), (40, 44), (10, 44)))], []),
        ([Label(BOX, 0, ((50, 12), (90, 12), (90, 44), (50, 44)))], [Kind.OUTLINE_ELSEWHERE]),
        # A code that the frame cuts: its box is of what is seen, its outline of the whole.
        ([Label((0, 10, 20, 50), 0, ((-40, 10), (20, 10), (20, 50), (-40, 50)))], []),
    ],
)
def test_labels(labels: Sequence[Label], found: list[Kind]) -> None:
    assert kinds(labels) == found


def test_the_same_picture_and_nearly_the_same_in_one_set(tmp_path: Path) -> None:
    draw_dataset(tmp_path, dict.fromkeys(("a.jpg", "a-again.jpg", "b.jpg", "b-pale.jpg", "c.jpg"), BOTH))
    images = tmp_path / "images"
    shutil.copy(images / "a.jpg", images / "a-again.jpg")
    save(images / "b-pale.jpg", photograph(2).point(lambda value: value * 7 // 10 + 60), quality=40)
    report = check(read_splits(tmp_path))
    assert [(finding.kind, [file.name for file in finding.files]) for finding in report.findings] == [
        (Kind.DUPLICATE, ["a.jpg", "a-again.jpg"]),
        (Kind.NEAR_DUPLICATE, ["b.jpg", "b-pale.jpg"]),
    ]
    assert report.errors == 0


def test_the_same_picture_with_other_labels_is_an_error(tmp_path: Path) -> None:
    dataset = draw_dataset(tmp_path, {"a.jpg": BOTH, "b.jpg": BOTH})
    shutil.copy(tmp_path / "images" / "a.jpg", tmp_path / "images" / "b.jpg")
    first, second = dataset.pictures
    write_dataset(tmp_path, dataset.names, [first, replace(second, labels=BOTH[:1])])
    assert set(check(read_splits(tmp_path)).counts) == {Kind.DUPLICATE, Kind.CONFLICTING_LABELS}


def test_splits_that_know_of_each_other(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "train", {"a.jpg": BOTH, "b.jpg": BOTH})
    draw_dataset(tmp_path / "val", {"a.jpg": BOTH, "other.jpg": BOTH}, first_seed=0)
    draw_dataset(tmp_path / "test", {"b-small.jpg": BOTH}, first_seed=10)
    save(tmp_path / "val" / "images" / "other.jpg", photograph(20))
    save(tmp_path / "test" / "images" / "b-small.jpg", photograph(1), quality=50)
    report = check(read_splits(tmp_path))
    assert [(finding.kind, finding.split) for finding in report.findings] == [
        (Kind.LEAK, "train+val"),
        (Kind.NEAR_LEAK, "train+test"),
    ]
    assert report.errors == 2


def test_balance(tmp_path: Path) -> None:
    many = [Label((x, 0.0, x + 4.0, 4.0), 0) for x in range(0, 88, 4)]
    draw_dataset(tmp_path / "train", {"a.jpg": [*many, Label(BOX, 1)]})
    draw_dataset(tmp_path / "val", {"b.jpg": many}, first_seed=5)
    draw_dataset(tmp_path / "test", {})
    report = check(read_splits(tmp_path))
    assert [(finding.kind, finding.split) for finding in report.findings] == [
        (Kind.IMBALANCE, "train"),
        (Kind.UNUSED_CLASS, "val"),
        (Kind.EMPTY_SPLIT, "test"),
    ]
    assert "22 of cat, 1 of dog: 22 to 1" in str(report.findings[0])


def test_splits_must_have_the_same_classes_and_some_picture(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "train", {"a.jpg": ()}, ("cat", "dog"))
    draw_dataset(tmp_path / "val", {"a.jpg": ()}, ("dog", "cat"))
    with pytest.raises(ConfigurationError, match="differ in their classes"):
        read_splits(tmp_path)
    draw_dataset(tmp_path / "empty", {})
    with pytest.raises(ConfigurationError, match="holds no picture"):
        read_splits(tmp_path / "empty")


def test_photographs_of_coco_are_all_different() -> None:
    shared = shared_dir()
    if shared is None:
        assert may_skip()
        pytest.skip("no photographs here")
    report = check_dataset(read_splits(shared / "datasets" / "coco-val-80"), CheckPolicy(), ImagePolicy())
    assert report.errors == 0
    assert not {Kind.DUPLICATE, Kind.NEAR_DUPLICATE} & set(report.counts)
