"""`sightstream train`, as it is called: killed while it writes, interrupted, and told what is wrong."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from detectors.training.checkpoint import read_checkpoint
from infra.cli import group
from tests.detectors.training.test_train_run import assert_same_end
from tests.support.squares import draw_squares

RECIPE = """
[network]
widths = [8, 8, 8, 8, 8]
depths = [0, 0, 0, 0, 0]
channels = 8
head_convs = 1
[training]
steps = 8
batch_size = 4
image_sizes = [64, 96]
warmup_steps = 2
checkpoint_every = 2
precision = "f32"
workers = 0
[evaluation]
every = 8
image_size = 64
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    draw_squares(tmp_path / "train", 8)
    draw_squares(tmp_path / "val", 4, seed=1)
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def invoke(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(group, ["train", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def begin(config: Path, out: Path, failpoint: str = "", more: Sequence[str] = ()) -> "subprocess.Popen[str]":
    environment = os.environ | ({"SIGHTSTREAM_FAILPOINT": failpoint} if failpoint else {})
    command = [sys.executable, "-m", "infra.cli", "train", str(config), "--out", str(out), *more]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What it says until it ends by itself; it does not outlive a test that gives up on it."""
    try:
        return process.communicate(timeout=170)
    finally:
        process.kill()
        process.wait()


@pytest.mark.kill
def test_killed_while_it_writes_a_checkpoint_it_goes_on_from_the_one_before(config: Path, tmp_path: Path) -> None:
    # In the third of four checkpoints: half written, and written but not in its place yet.
    places = {tmp_path / "writing": "checkpoint.writing:8", tmp_path / "renaming": "checkpoint.renaming:3"}
    with ExitStack() as stack:
        started = [stack.enter_context(begin(config, out, failpoint)) for out, failpoint in places.items()]
        said = [end(process) for process in started]
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2, said
    assert invoke(config, "--out", tmp_path / "whole")[0] == 0
    for out in places:
        assert (out / "last.pt.part").exists()
        assert 0 < read_checkpoint(out / "last.pt").step < 8
        code, summary, _ = invoke(config, "--out", out)
        assert code == 0
        assert summary.startswith(f"{out}: finished after 8 steps; best.pt is of step 8")
        assert_same_end(tmp_path / "whole", out)


@pytest.mark.kill
def test_an_interrupt_writes_a_checkpoint_first(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with begin(config, out, more=["--set", "training.steps=1000000", "--set", "training.workers=1"]) as process:
        assert process.stderr
        # It says so when it is about to take its first step, and answers interrupts from then on.
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        said, errors = end(process)
    assert "8 pictures, 2 classes; f32 on cpu" in first
    assert process.returncode == 130, errors
    assert "stopped as asked; the same command goes on from here" in said
    assert read_checkpoint(out / "last.pt").step >= 1


def test_data_and_values_of_the_command_line_come_before_the_recipe_s(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    draw_squares(other / "train", 6)
    draw_squares(other / "val", 4)
    changes = ["--set", "training.steps=1", "--set", "training.device=cpu"]
    code, _, said = invoke(config, "--out", tmp_path / "run", "--data", other, *changes)
    assert code == 0
    assert "6 pictures, 2 classes; f32 on cpu" in said
    recipe = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert (recipe["training"]["steps"], recipe["data"]["train"]) == (1, str(other / "train"))


def test_what_the_user_can_mend_is_one_line_and_exit_code_2(config: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--set", "training.stepz=1"), "there is no 'training.stepz'; did you mean 'training.steps'?"),
        (("--set", "training=1"), "training must be a table"),
        (("--set", "training.steps.more=1"), "training.steps.more: training.steps is not a table"),
        (("--data", tmp_path / "none"), "cannot read the data set"),
    ):
        code, _, said = invoke(config, "--out", tmp_path / "run", *arguments)
        assert (code, len(said.splitlines())) == (2, 1), said
        assert message in said
    assert invoke(config, "--set", "steps")[0] == 2
