"""Data sets of scenes: the same for any number of processes, resumed, and refused with one clear line."""

from pathlib import Path

import pytest

from detectors.training import synth
from detectors.training.dataset import digest_dataset, read_dataset
from detectors.training.synth import SynthPlan, picture_name, synthesise
from schemas.errors import ConfigurationError

PLAN = SynthPlan({"train": 6, "test": 2}, seed=3, size=96)


class Stopped(Exception):  # noqa: N818 - not an error: somebody pulled the plug
    pass


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "_CHUNK", 2)


def draw(out: Path, plan: SynthPlan = PLAN, jobs: int = 1) -> dict[str, str]:
    return {split: digest_dataset(drawn) for split, drawn in synthesise(out, plan, jobs, lambda _: None).items()}


def stop_after(pictures: int, out: Path) -> None:
    """Begin to draw PLAN, and be stopped."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if done >= pictures:
            raise Stopped

    with pytest.raises(Stopped):
        synthesise(out, PLAN, 1, count)


def test_any_number_of_processes_draws_the_same(tmp_path: Path) -> None:
    alone = draw(tmp_path / "alone")
    assert alone == draw(tmp_path / "together", jobs=2)
    assert alone["train"] != alone["test"]
    assert sorted(path.name for path in (tmp_path / "alone" / "train").iterdir()) == ["annotations.json", "images"]
    assert len(read_dataset(tmp_path / "alone" / "test").pictures) == 2


def test_splits_and_seeds_share_no_picture(tmp_path: Path) -> None:
    synthesise(tmp_path / "a", SynthPlan({"train": 3, "val": 3}, seed=1, size=96), 1, lambda _: None)
    synthesise(tmp_path / "b", SynthPlan({"train": 3}, seed=2, size=96), 1, lambda _: None)
    files = list(tmp_path.rglob("*.jpg"))
    assert len({file.read_bytes() for file in files}) == len(files) == 9


def test_more_pictures_begin_with_the_same_ones(tmp_path: Path) -> None:
    for count in (2, 3):
        synthesise(tmp_path / str(count), SynthPlan({"train": count}, size=96), 1, lambda _: None)
    for number in range(2):
        few, more = (tmp_path / str(count) / "train" / picture_name(number) for count in (2, 3))
        assert few.read_bytes() == more.read_bytes()


def test_a_run_that_was_stopped_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    stop_after(4, tmp_path / "stopped")
    first = tmp_path / "stopped" / "train" / picture_name(0)
    drawn_at = first.stat().st_mtime_ns
    steps: list[int] = []
    resumed = synthesise(tmp_path / "stopped", PLAN, 1, steps.append)
    assert {split: digest_dataset(drawn) for split, drawn in resumed.items()} == draw(tmp_path / "whole")
    assert first.stat().st_mtime_ns == drawn_at
    assert steps[0] >= 4
    assert sum(steps) == 8


def test_a_finished_set_is_read_not_drawn(tmp_path: Path) -> None:
    digests = draw(tmp_path)
    (tmp_path / "train" / picture_name(5)).touch()
    steps: list[int] = []
    assert {
        split: digest_dataset(drawn) for split, drawn in synthesise(tmp_path, PLAN, 1, steps.append).items()
    } == digests
    assert steps == [8]


def test_a_full_disk_is_one_line_and_what_was_drawn_is_kept(tmp_path: Path) -> None:
    stop_after(2, tmp_path / "out")
    full = tmp_path / "out" / "train" / picture_name(3)
    full.symlink_to("/dev/full")
    with pytest.raises(ConfigurationError, match=r"No space left on device; what was drawn is kept"):
        draw(tmp_path / "out")
    full.unlink()
    assert draw(tmp_path / "out") == draw(tmp_path / "whole")


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    draw(tmp_path / "mine", SynthPlan({"train": 1}, size=96))
    with pytest.raises(ConfigurationError, match="drawn with other options"):
        draw(tmp_path / "mine", SynthPlan({"train": 1}, seed=2, size=96))
    (tmp_path / "yours").mkdir()
    (tmp_path / "yours" / "diary.txt").write_text("dear")
    with pytest.raises(ConfigurationError, match="is not empty"):
        draw(tmp_path / "yours")


def test_photographs_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    plan = SynthPlan({"train": 1}, size=96, backgrounds=folder)
    with pytest.raises(ConfigurationError, match="there is no picture in"):
        draw(tmp_path / "out", plan)
    (folder / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ConfigurationError, match=r"cannot read the picture .*a\.jpg"):
        draw(tmp_path / "out", plan)
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "find_spec", lambda name: None if name == "zxingcpp" else object())
    with pytest.raises(
        ConfigurationError, match=r"zxingcpp, which is not installed: pip install 'sightstream\[training\]'"
    ):
        draw(tmp_path)
