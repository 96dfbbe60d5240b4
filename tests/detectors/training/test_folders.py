"""Folders of data sets appear whole or not at all, whatever happens on the way."""

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

from detectors.training.dataset import Label
from detectors.training.folders import Named, name_pictures, new_folder, read_splits, write_pictures
from schemas.errors import ConfigurationError
from tests.support.datasets import BOX, draw_dataset


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 500 bytes: what a full disk is like, on one that is not."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Named]:
    draw_dataset(tmp_path / "in", {"a.jpg": [Label(BOX, 0)], "deep.jpg": []})
    return name_pictures(tmp_path / "in", read_splits(tmp_path / "in"))[""]


def test_nothing_is_left_where_the_disk_is_full(tmp_path: Path, pictures: list[Named], small_files: None) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"cannot write .*out: .*File too large"),
        new_folder(tmp_path / "out") as part,
    ):
        write_pictures(part, ("cat",), pictures, "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_nothing_is_left_of_what_another_error_ends(tmp_path: Path, pictures: list[Named]) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "out") as part:
        write_pictures(part, ("cat",), pictures, "copy")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ConfigurationError, match="out exists already"), new_folder(tmp_path / "out"):
        pass
    (tmp_path / "out" / "mine").unlink()
    with new_folder(tmp_path / "out") as part:
        (part / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    with pytest.raises(ConfigurationError, match="exists already"), new_folder(tmp_path / "out" / "new"):
        pass


def test_what_a_killed_run_left_is_named_not_removed(tmp_path: Path) -> None:
    (tmp_path / "out.part").mkdir()
    with (
        pytest.raises(ConfigurationError, match=r"out\.part is in the way: .* remove it"),
        new_folder(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out.part").is_dir()


def test_names_that_are_taken_or_lead_elsewhere_are_changed(tmp_path: Path, pictures: list[Named]) -> None:
    [(picture, _), _] = pictures
    wanted = ["a.jpg", "A.jpg", "a.jpg", "../../b.jpg", "/etc/c.jpg", "sub/a.jpg"]
    with new_folder(tmp_path / "out") as part:
        write_pictures(part, ("cat",), [(picture, PurePath(name)) for name in wanted], "copy")
    written = [p.file.relative_to(tmp_path / "out" / "images") for p in read_splits(tmp_path / "out")[""].pictures]
    assert list(map(str, written)) == ["a.jpg", "A-2.jpg", "a-3.jpg", "b.jpg", "etc/c.jpg", "sub/a.jpg"]


def test_a_hard_link_to_another_disk_is_an_error_that_says_what_to_do(tmp_path: Path, pictures: list[Named]) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("all is on one disk here")
    out = elsewhere / f"{tmp_path.parent.name}-{tmp_path.name}"
    try:
        with (
            pytest.raises(ConfigurationError, match=r"a\.jpg cannot be hard-linked .*copy it, or symlink"),
            new_folder(out) as part,
        ):
            write_pictures(part, ("cat",), pictures, "hardlink")
        assert not out.exists()
    finally:
        shutil.rmtree(out, ignore_errors=True)


def test_a_picture_that_goes_away_is_named(tmp_path: Path, pictures: list[Named]) -> None:
    pictures[1][0].file.unlink()
    with pytest.raises(ConfigurationError, match=r"deep\.jpg: No such file"), new_folder(tmp_path / "out") as part:
        write_pictures(part, ("cat",), pictures, "copy")
    assert not (tmp_path / "out").exists()
