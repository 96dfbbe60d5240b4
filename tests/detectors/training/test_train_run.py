"""Runs: they learn, go on as if nothing had been, and lose nothing when something is wrong."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detectors.training.batches import TrainingBatches
from detectors.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from detectors.training.dataset import read_dataset, write_dataset
from detectors.training.device import Device
from detectors.training.losses import Targets
from detectors.training.network import Network
from detectors.training.optimiser import Optimiser, on_cpu
from detectors.training.run_folder import RunFolder
from schemas.errors import ConfigurationError, FatalError
from tests.support.squares import NAMES, TINY, Looker, draw_squares, run, tiny_recipe

FILES = {"best.pt", "last.pt", "last.pt.previous", "metrics.jsonl", "recipe.toml", "run.json", ".lock"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw_squares(folder / "train", 12)
    draw_squares(folder / "val", 6, seed=1)
    return folder


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted, its batches made by a process of its own."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert run(tiny_recipe(data, workers=0), out).ended == "finished"
    return out


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_same_end(one: Path, other: Path) -> None:
    """Bit for bit: averages, weights, the optimiser's memory, and the best."""
    first, second = (read_checkpoint(folder / "last.pt") for folder in (one, other))
    assert first.step == second.step
    assert same(first.weights, second.weights)
    assert first.progress
    assert second.progress
    assert same(first.progress["optimiser"]["network"], second.progress["optimiser"]["network"])
    memories = [checkpoint.progress["optimiser"]["optimisers"] for checkpoint in (first, second)]  # type: ignore[index]
    for one_memory, other_memory in zip(*memories, strict=True):
        assert one_memory["state"]
        assert all(same(kept, other_memory["state"][number]) for number, kept in one_memory["state"].items())
    assert same(read_checkpoint(one / "best.pt").weights, read_checkpoint(other / "best.pt").weights)


def test_a_run_leaves_what_its_users_need(whole: Path, data: Path) -> None:
    assert {path.name for path in whole.iterdir()} - {"best.pt.previous"} == FILES
    best = read_checkpoint(whole / "best.pt")
    assert (best.names, best.plan, best.image_size, best.progress) == (NAMES, TINY, 64, None)
    assert set(best.scores) == {"map50", "map50_95"}
    network = best.build()
    assert not network.training
    assert network.decode(network(torch.zeros(1, 3, 64, 64))).shape == (1, 6, 64 + 16 + 4)
    about = json.loads((whole / "run.json").read_text())
    assert about["data_digest"] == best.data_digest
    assert about["data_digest"].startswith("sha256:")
    assert about["code_version"] == best.code_version
    assert about["recipe"]["training"]["steps"] == best.recipe["training"]["steps"] == 12
    assert about["seed"] == 0
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "map50" in line] == [6, 12]
    assert (whole / "recipe.toml").read_text() == "# a test's\n"


@pytest.mark.parametrize("stop_after", [3, 6, 8])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    stop_after: int, data: Path, whole: Path, tmp_path: Path
) -> None:
    stopped = run(tiny_recipe(data), tmp_path / "run", Looker(stop_after))
    assert (stopped.ended, stopped.step) == ("stopped", stop_after)
    looker = Looker()
    assert run(tiny_recipe(data), tmp_path / "run", looker).ended == "finished"
    assert looker.began == stop_after
    assert looker.steps == list(range(stop_after + 1, 13))
    assert_same_end(whole, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "map50" in line] == [6, 12]


def test_a_finished_run_is_left_as_it_is(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, steps=2)
    first = run(recipe, tmp_path / "run")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    looker = Looker()
    assert run(recipe, tmp_path / "run", looker) == first
    assert looker.steps == []
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_another_recipe_or_other_data_do_not_go_on(data: Path, tmp_path: Path) -> None:
    run(tiny_recipe(data, steps=1), tmp_path / "run")
    with pytest.raises(
        ConfigurationError, match=r"another recipe: training\.steps is 3, was 1\. Give another --out, or"
    ):
        run(tiny_recipe(data, steps=3), tmp_path / "run")
    other = tmp_path / "data"
    draw_squares(other / "train", 12, seed=5)
    draw_squares(other / "val", 6, seed=1)
    with pytest.raises(ConfigurationError, match="the data have changed since"):
        run(tiny_recipe(other, steps=1), tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert run(tiny_recipe(other, steps=2), tmp_path / "run", fresh=True).step == 2
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(data: Path, whole: Path, tmp_path: Path) -> None:
    run(tiny_recipe(data), tmp_path / "run", Looker(8))
    last = tmp_path / "run" / "last.pt"
    last.write_bytes(last.read_bytes()[:5000])
    looker = Looker()
    run(tiny_recipe(data), tmp_path / "run", looker)
    assert looker.began == 4
    assert_same_end(whole, tmp_path / "run")
    for path in (last, last.with_name("last.pt.previous")):
        path.write_bytes(b"nonsense")
    with pytest.raises(ConfigurationError, match="is not a checkpoint of sightstream, or it is damaged"):
        run(tiny_recipe(data), tmp_path / "run")


def test_a_full_disk_stops_the_run_and_costs_nothing(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(tiny_recipe(data), out, Looker(3))
    # A device that is always full takes the place of the file that is written.
    (out / "last.pt.part").symlink_to("/dev/full")
    with pytest.raises(
        FatalError, match=r"cannot write the checkpoint .*No space left on device; the one before it is kept"
    ):
        run(tiny_recipe(data), out)
    assert read_checkpoint(out / "last.pt").step == 3
    assert not (out / "last.pt.part").is_symlink()
    run(tiny_recipe(data), out)
    assert_same_end(whole, out)


def test_a_loss_that_is_no_number_stops_the_run_before_anything_is_overwritten(data: Path, tmp_path: Path) -> None:
    out, looker = tmp_path / "run", Looker()
    recipe = tiny_recipe(data, learning_rate=1e30, warmup_steps=0, checkpoint_every=1)
    with pytest.raises(FatalError, match=r"5 steps in a row, up to step 6; .*last\.pt is the last good checkpoint"):
        run(recipe, out, looker)
    assert read_checkpoint(out / "last.pt").step == 1
    assert [warning.split(":")[0] for warning in looker.warnings] == [f"step {step}" for step in range(2, 7)]


def test_a_step_without_a_number_changes_nothing(data: Path) -> None:
    recipe = tiny_recipe(data, fixed_first=0.0)
    device = Device.choose(recipe.training)
    optimiser = Optimiser(device.adopt(Network(2, TINY)), recipe.training, device)
    batch = TrainingBatches(read_dataset(data / "train").pictures, recipe)[0]
    assert optimiser.step(0, batch)
    before, averages = on_cpu(optimiser.network.state_dict()), on_cpu(optimiser.average.weights)
    poison = Targets(torch.tensor([[0.0, 0.0, 20.0, float("inf")]]), torch.zeros(1, dtype=torch.int64))
    assert optimiser.step(1, replace(batch, targets=(poison, *batch.targets[1:]))) is None
    assert same(before, on_cpu(optimiser.network.state_dict()))
    assert same(averages, on_cpu(optimiser.average.weights))
    assert optimiser.step(2, batch)


def test_patience_ends_a_run_that_gains_nothing(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, learning_rate=1e-12, steps=50)
    recipe = replace(recipe, evaluation=replace(recipe.evaluation, every=1, patience=3))
    outcome = run(recipe, tmp_path / "run")
    assert (outcome.ended, outcome.step) == ("no_gain", outcome.best["step"] + 3)
    assert run(recipe, tmp_path / "run") == outcome


def test_too_many_broken_pictures_stop_the_run(data: Path, tmp_path: Path) -> None:
    train_set = draw_squares(tmp_path / "train", 12)
    draw_squares(tmp_path / "val", 4, seed=1)
    train_set.pictures[3].file.write_bytes(b"no picture")
    with pytest.raises(ConfigurationError, match=r"1 of 12 pictures cannot be used, more than 1%: .*0003\.jpg"):
        run(tiny_recipe(tmp_path), tmp_path / "run")


def test_data_that_cannot_be_trained_on_are_refused_at_the_start(data: Path, tmp_path: Path) -> None:
    train_set = draw_squares(tmp_path / "train", 4)
    recipe = tiny_recipe(tmp_path)
    with pytest.raises(ConfigurationError, match=r"cannot read the data set .*val.*No such file"):
        run(recipe, tmp_path / "run")
    draw_squares(tmp_path / "val", 4)
    val = tmp_path / "val"
    for names, pictures, message in (
        (NAMES, (), r"validation set \(.*\) has no pictures"),
        (
            NAMES,
            [replace(picture, labels=()) for picture in read_dataset(val).pictures],
            "has no objects in its 4 pictures",
        ),
        (("dark", "bright"), read_dataset(val).pictures, "the classes differ: dark, light in .*; dark, bright in"),
    ):
        write_dataset(val, names, pictures)
        with pytest.raises(ConfigurationError, match=message):
            run(recipe, tmp_path / "run")
    (tmp_path / "train" / "annotations.json").write_text('{"images": [{"id": 1}], "annotations": [], "categories": []}')
    with pytest.raises(ConfigurationError, match="is not in COCO's format"):
        run(recipe, tmp_path / "run")
    write_dataset(tmp_path / "train", NAMES, train_set.pictures)
    train_set.pictures[2].file.unlink()
    with pytest.raises(ConfigurationError, match=r"1 pictures of the training set .* are missing: .*0002\.jpg"):
        run(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_two_processes_do_not_train_in_one_folder(data: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").held(), pytest.raises(ConfigurationError, match="another process trains in"):
        run(tiny_recipe(data), tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot use the folder"):
        run(tiny_recipe(data), tmp_path / "file")


def test_a_device_or_precision_that_is_not_here(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="torch has no device nonsense here"):
        run(tiny_recipe(data, device="nonsense"), tmp_path / "run")
    with pytest.raises(ConfigurationError, match=r"training\.precision f16 needs a CUDA device"):
        run(tiny_recipe(data, device="cpu", precision="f16"), tmp_path / "run")


def test_tensorboard_gets_every_figure_once(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = replace(tiny_recipe(data), tracker="tensorboard")
    run(recipe, tmp_path / "run", Looker(7))
    run(recipe, tmp_path / "run")
    events = EventAccumulator(os.fspath(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("map50")] == [6, 12]


def test_checkpoints_hold_data_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the checkpoint .*: No such file or directory"):
        read_checkpoint(tmp_path / "none.pt")
    torch.save({"format": 1, "call": Path("/")}, tmp_path / "code.pt")
    with pytest.raises(ConfigurationError, match="is not a checkpoint"):
        read_checkpoint(tmp_path / "code.pt")
    other = Checkpoint(NAMES, replace(TINY, channels=16), 64, 1, Network(2, TINY).state_dict(), {}, "sha256:", "1", {})
    write_checkpoint(tmp_path / "other.pt", other)
    with pytest.raises(ConfigurationError, match="the weights are not of the network"):
        read_checkpoint(tmp_path / "other.pt").build()
