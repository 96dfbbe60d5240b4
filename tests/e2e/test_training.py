"""From nothing to a detector: scenes are drawn, a network is trained on them and packaged, the engine runs and measures it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.cli import group

# Small enough for a minute on two cores.
RECIPE = """
[network]
widths = [16, 24, 48, 64, 64]
depths = [0, 0, 1, 1, 1]
channels = 32
head_convs = 1
[training]
steps = 260
workers = 0
batch_size = 16
image_sizes = [128]
learning_rate = 4e-3
warmup_steps = 20
ema_decay = 0.98
calm_last = 0.2
fixed_first = 0.0
[evaluation]
every = 1000
image_size = 128
pictures = 60
[augmentation]
scale = [0.8, 1.2]
mosaic = 0.0
light = 0.2
grey = 0.0
invert = 0.0
blur = 0.0
noise = 0.0
jpeg = 0.0
"""


def sightstream(*arguments: object, codes: tuple[int, ...] = (0,)) -> str:
    done = CliRunner().invoke(group, [str(argument) for argument in arguments])
    assert done.exit_code in codes, done.output
    return done.stdout + done.stderr


def train(recipe: Path, data: Path, run: Path, steps: int) -> float:
    """The mAP50 that the run itself measured."""
    said = sightstream("train", recipe, "--data", data, "--out", run, "--set", f"training.steps={steps}")
    assert f"finished after {steps} steps" in said
    return float(said.split("mAP50 ")[1].split(",")[0])


@pytest.mark.timeout(600)
def test_a_small_detector_of_codes_beats_chance_by_far(tmp_path: Path) -> None:
    recipe, data, run, package, figures = (tmp_path / name for name in ("recipe.toml", "data", "run", "out", "figures"))
    recipe.write_text(RECIPE)
    splits = [f"--split={name}={pictures}" for name, pictures in (("train", 500), ("val", 80))]
    sightstream("data", "synth", data, *splits, "--size", 128, "--jobs", 2)
    # The same network, hardly trained, is what chance finds.
    assert train(recipe, data, tmp_path / "chance", 3) < 0.02
    assert train(recipe, data, run, 260) > 0.1
    packing = ("package", run, "--out", package, "--name", "small", "--data", data / "val", "--confidence", 0.3)
    # In 16 bits so young a network may well find other boxes, since it is sure of none; that is said, and not hidden.
    compared = [line.split() for line in sightstream(*packing, codes=(0, 1)).splitlines() if " f32" in line]
    assert len(compared) >= 2
    assert {line[7] for line in compared} == {"yes"}, compared
    model = ("--model", package / "small.onnx", "--backend", "openvino", "--precision", "f32")
    sightstream("--set", "images.decoders=1", "evaluate", *model, "--data", data / "val", "--json", figures)
    assert json.loads(figures.read_text())["map50"] > 0.1
