"""A data set divided: shares, classes, near duplicates, seeds, and what it needs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from detectors.policy import ImagePolicy
from detectors.training.dataset import Label, write_dataset
from detectors.training.folders import Named, name_pictures, read_splits
from detectors.training.splitting import SplitPolicy, split_dataset, write_split
from schemas.errors import ConfigurationError
from tests.support.datasets import BOX, draw_dataset, save
from tests.support.images import photograph

ONE_DECODER = ImagePolicy(decoders=1)


def split(folder: Path, policy: SplitPolicy) -> dict[str, list[Named]]:
    pictures = [named for part in name_pictures(folder, read_splits(folder)).values() for named in part]
    return split_dataset(pictures, policy, ONE_DECODER)


def names_of(parts: Mapping[str, Sequence[Named]]) -> dict[str, list[str]]:
    return {part: [str(name) for _, name in pictures] for part, pictures in parts.items()}


@pytest.fixture
def forty(tmp_path: Path) -> Path:
    """40 pictures: 20 of the first class, 10 of the second, of which 5 are of both, 5 of the third, and 10 of nothing."""
    labels: dict[str, list[Label]] = {}
    for number in range(40):
        classes = [0] * (number < 20) + [1] * (15 <= number < 25) + [2] * (25 <= number < 30)
        labels[f"{number}.png"] = [Label(BOX, class_id) for class_id in classes]
    draw_dataset(tmp_path / "in", labels, ("many", "some", "few"))
    return tmp_path / "in"


def test_every_class_and_the_background_have_their_shares(forty: Path) -> None:
    parts = split(forty, SplitPolicy(shares=(0.6, 0.2, 0.2)))
    assert sorted(name for names in names_of(parts).values() for name in names) == sorted(f"{n}.png" for n in range(40))
    counts = {
        part: Counter(
            class_id for picture, _ in pictures for class_id in ({label.class_id for label in picture.labels} or {-1})
        )
        for part, pictures in parts.items()
    }
    assert [counts[part][2] for part in parts] == [3, 1, 1]
    assert [counts[part][1] for part in parts] == [6, 2, 2]
    assert [counts[part][0] for part in parts] == [12, 4, 4]
    assert [counts[part][-1] for part in parts] == [6, 2, 2]


def test_the_seed_alone_decides_not_the_order_of_the_pictures(forty: Path) -> None:
    before = names_of(split(forty, SplitPolicy(seed=3)))
    assert names_of(split(forty, SplitPolicy(seed=4))) != before
    dataset = read_splits(forty)[""]
    write_dataset(forty, dataset.names, reversed(dataset.pictures))
    after = names_of(split(forty, SplitPolicy(seed=3)))
    assert {part: set(names) for part, names in after.items()} == {part: set(names) for part, names in before.items()}


def test_pictures_that_are_nearly_the_same_are_never_divided(tmp_path: Path) -> None:
    draw_dataset(tmp_path, {f"{scene}-{shot}.jpg": [Label(BOX, scene % 2)] for scene in range(8) for shot in range(3)})
    for scene in range(8):
        for shot in range(3):
            save(tmp_path / "images" / f"{scene}-{shot}.jpg", photograph(scene), quality=90 - 20 * shot)
    for seed in range(2):
        parts = names_of(split(tmp_path, SplitPolicy(shares=(0.5, 0.25, 0.25), seed=seed)))
        assert {part: len(names) for part, names in parts.items()} == {"train": 12, "val": 6, "test": 6}
        scenes = [{name.partition("-")[0] for name in names} for names in parts.values()]
        assert sum(map(len, scenes)) == len(set().union(*scenes)) == 8


@pytest.mark.parametrize("placement", ["copy", "hardlink", "symlink"])
def test_what_is_written_is_a_data_set_for_each_split(forty: Path, tmp_path: Path, placement: str) -> None:
    (forty / "images" / "deep").mkdir()
    dataset = read_splits(forty)[""]
    first = dataset.pictures[0]
    moved = first.file.rename(forty / "images" / "deep" / first.file.name)
    write_dataset(forty, dataset.names, [replace(first, file=moved), *dataset.pictures[1:]])
    parts = split(forty, SplitPolicy(shares=(0.5, 0.5, 0)))
    written = write_split(parts, dataset.names, tmp_path / "out", placement)  # type: ignore[arg-type]
    assert list(written) == ["train", "val"]
    for part, pictures in parts.items():
        assert [p.labels for p in written[part].pictures] == [picture.labels for picture, _ in pictures]
        for picture, (source, name) in zip(written[part].pictures, pictures, strict=True):
            assert picture.file == tmp_path / "out" / part / "images" / name
            assert picture.file.read_bytes() == source.file.read_bytes()
            assert picture.file.is_symlink() == (placement == "symlink")
            assert picture.file.samefile(source.file) == (placement != "copy")


def test_splits_that_there_are_are_joined_and_divided_anew(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "train", {"a.png": [], "b.png": [], "c.png": []})
    draw_dataset(tmp_path / "test", {"a.png": []}, first_seed=10)
    parts = split(tmp_path, SplitPolicy(shares=(0.5, 0.5, 0)))
    assert {part: len(names) for part, names in parts.items()} == {"train": 2, "val": 2}
    written = write_split(parts, ("cat", "dog"), tmp_path / "out", "copy")
    names = sorted(picture.file.name for dataset in written.values() for picture in dataset.pictures)
    assert names in (["a-2.png", "a.png", "b.png", "c.png"], ["a.png", "a.png", "b.png", "c.png"])


def test_a_split_for_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    draw_dataset(tmp_path, {"a.png": [], "b.png": []})
    with pytest.raises(ConfigurationError, match="nothing is left for test: 2 pictures in 2 groups"):
        split(tmp_path, SplitPolicy(shares=(0.4, 0.4, 0.2)))


def test_a_picture_that_cannot_be_read_is_an_error(forty: Path) -> None:
    (forty / "images" / "7.png").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"7\.png cannot be read: image_empty.*data check"):
        split(forty, SplitPolicy())


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (0.8, 0.1, 0.0)])
def test_shares_are_of_a_whole(shares: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigurationError, match="must add up to 1"):
        SplitPolicy(shares=shares)
