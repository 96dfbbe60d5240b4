"""From a checkpoint to files that can be served and registered, through `sightstream package`."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from detectors.golden import draw_golden_images
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from detectors.training.card import write_card
from detectors.training.checkpoint import Checkpoint, write_checkpoint
from detectors.training.dataset import Label, Picture, write_dataset
from detectors.training.manifest import Manifest, Threshold
from detectors.training.network import Network, NetworkPlan
from infra.cli import group

NAMES = ("tile", "disc")
PLAN = NetworkPlan((8, 8, 8, 8, 8), (0, 0, 0, 0, 0), 8, 1)
SIZE = 128
# What an untrained place of the middle level says: a square of about four strides, centred on its cell.
SIDE = 68


MANIFEST = Manifest(
    name="tiles",
    version="1",
    digest="sha256:abcd",
    labels=NAMES,
    image_size=SIZE,
    stride=32,
    parameters=1,
    threshold=None,
    metrics=None,
    parity=(),
    licence="",
    lineage={"data": "", "code": "", "checkpoint": "", "step": 1, "validation": {}},
)


def make_checkpoint() -> Checkpoint:
    """Untrained, but sure enough of itself for boxes to compare."""
    torch.manual_seed(3)
    network = Network(len(NAMES), PLAN)
    nn.init.normal_(network.score_branch.output.weight, std=0.1)
    nn.init.constant_(network.score_branch.output.bias, -0.5)
    return Checkpoint(
        names=NAMES,
        plan=PLAN,
        image_size=SIZE,
        step=7,
        weights=network.state_dict(),
        recipe={"training": {"steps": 7}},
        data_digest="sha256:feed",
        code_version="0.0.0",
        scores={"map50": 0.25},
    )


def write_pictures(folder: Path, count: int = 4) -> Path:
    """Squares where an untrained network sees some."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(count):
        pixels = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        file = folder / "images" / f"{number}.png"
        cv2.imwrite(str(file), pixels)
        x, y = 40 + 16 * (number % 3), 56
        box = (x - SIDE / 2, y - SIDE / 2, x + SIDE / 2, y + SIDE / 2)
        pictures.append(Picture(file, SIZE, SIZE, (Label(box, 0), Label(box, 1))))
    write_dataset(folder, NAMES, pictures)
    return folder


@pytest.fixture(scope="module", autouse=True)
def few_canvases() -> Iterator[None]:
    """Backends compile for each shape of canvas: three will do here."""
    drawn = dict(list(draw_golden_images().items())[1:4])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detectors.training.backends.draw_golden_images", lambda: drawn)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiles"
    folder.mkdir()
    write_checkpoint(folder / "best.pt", make_checkpoint())
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "val")


def sightstream(*arguments: object) -> Result:
    return CliRunner().invoke(group, [str(argument) for argument in arguments])


def metadata(model: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(model).metadata_props}


@pytest.fixture(scope="module")
def packaged(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("packages") / "tiles"
    chosen = ("--data", data, "--threshold-precision", 0.001, "--licence", "Apache-2.0")
    return out, sightstream("package", run, "--out", out, *chosen)


def test_model_card_and_manifest_say_what_was_measured_and_nothing_else(
    packaged: tuple[Path, Result], run: Path
) -> None:
    out, done = packaged
    assert done.exit_code == 0, done.output
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    names = {"tiles.onnx", "tiles.md"}
    assert {entry["path"] for entry in manifest["files"]} == names
    assert {file.name for file in out.iterdir()} == names | {"manifest.json"}
    for entry in manifest["files"]:
        content = (out / entry["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])
    assert (manifest["name"], manifest["labels"], manifest["licence"]) == ("tiles", list(NAMES), "Apache-2.0")
    assert manifest["metrics"] is None
    assert manifest["lineage"]["data"] == "sha256:feed"
    assert manifest["lineage"]["checkpoint"] == f"sha256:{hashlib.sha256((run / 'best.pt').read_bytes()).hexdigest()}"
    threshold = manifest["threshold"]
    assert threshold["wanted"] == 0.001
    assert threshold["images"] == 4
    card = (out / "tiles.md").read_text()
    assert card.startswith("# tiles\n")
    assert "## Metrics\nNot evaluated." in card
    assert f"a score of {threshold['confidence']:g}" in card
    assert "flatters" not in card
    assert manifest["digest"] in card


def test_the_file_is_held_against_torch_and_every_backend_against_the_others(packaged: tuple[Path, Result]) -> None:
    manifest = json.loads((packaged[0] / "manifest.json").read_text())
    first, *others = manifest["parity"]["comparisons"]
    assert first["what"].endswith(", against torch")
    backends = {entry["what"].split(" on ")[1].split()[0] for entry in others}
    assert backends == {"openvino", "onnxruntime"}
    assert all(entry["holds"] and entry["boxes"] >= 20 for entry in (first, *others))
    assert manifest["parity"]["holds"]
    assert any("batch 4 against 1" in entry["what"] for entry in others)


def test_the_model_says_all_that_a_backend_asks_for(packaged: tuple[Path, Result]) -> None:
    model = packaged[0] / "tiles.onnx"
    said = metadata(model)
    assert (said["names"], said["stride"], said["imgsz"]) == ("{0: 'tile', 1: 'disc'}", "32", "[128, 128]")
    assert (said["licence"], said["data_digest"]) == ("Apache-2.0", "sha256:feed")
    detector = open_detector(ModelSpec(path=str(model), precision="f32"))
    assert detector.model.advice.confidence == float(said["confidence"])
    assert detector.model.canvas == (SIZE, SIZE)
    detector.close()


def test_metrics_come_from_a_report_on_this_very_model_and_on_no_other(
    packaged: tuple[Path, Result], run: Path, data: Path, tmp_path: Path
) -> None:
    model, report, out = packaged[0] / "tiles.onnx", tmp_path / "report.json", tmp_path / "again"
    evaluated = sightstream("evaluate", "--model", model, "--data", data, "--precision", "f32", "--json", report)
    assert evaluated.exit_code == 0, evaluated.output
    about = tmp_path / "about.md"
    about.write_text("Finds tiles. Sees nothing else.\n")
    given = ("--confidence", metadata(model)["confidence"], "--licence", "Apache-2.0", "--about", about)
    done = sightstream("package", run, "--out", out, "--report", report, *given)
    # On drawn pictures alone there are few boxes, or many: whether it holds is not what this is about.
    assert done.exit_code in {0, 1}, done.output
    assert (out / "tiles.onnx").read_bytes() == model.read_bytes()
    manifest = json.loads((out / "manifest.json").read_text())
    assert [entry["label"] for entry in manifest["metrics"]["classes"]] == sorted(NAMES, key=NAMES.index)
    card = (out / "tiles.md").read_text()
    assert "Finds tiles. Sees nothing else." in card
    assert "| **all** | 8 |" in card
    assert "It was given by hand." in card
    told = Threshold(0.5, 0.99, 0.995, 0.9, 4, manifest["metrics"]["annotations"])
    flattered = replace(MANIFEST, threshold=told, metrics=manifest["metrics"])
    assert "which flatters precision and recall" in write_card(flattered, 1)
    best = write_card(replace(flattered, threshold=replace(told, wanted=None)), 1)
    assert "where F1, the harmonic mean of precision and recall, is best, on 4 labelled pictures" in best
    assert "which flatters" not in write_card(replace(flattered, threshold=replace(told, data="sha256:other")), 1)
    other = sightstream("package", run, "--out", tmp_path / "other", "--confidence", 0.9, "--report", report)
    assert other.exit_code == 2
    assert "package without --report, evaluate that" in other.stderr


def test_an_8_bit_sibling_is_made_by_the_way_and_its_report_counts(run: Path, data: Path, tmp_path: Path) -> None:
    given = ("--confidence", 0.4, "--int8", "--calibration", data / "images", "--name", "t")
    done = sightstream("package", run, "--out", tmp_path / "p", *given)
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    quantised = manifest["parity"]["comparisons"][-1]
    assert quantised["what"].startswith("t.int8.xml on openvino")
    # Weights that mean nothing may well find something else in 8 bits.
    assert done.exit_code == (0 if manifest["parity"]["holds"] else 1), done.output
    names = {"t.onnx", "t.md", "t.int8.xml", "t.int8.bin", "t.int8.xml.parity.json"}
    assert {entry["path"] for entry in manifest["files"]} == names
    assert {file.name for file in (tmp_path / "p").iterdir()} == names | {"manifest.json"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "there is no run or checkpoint none"),
        (["RUN", "--int8"], "go together"),
        (["RUN", "--report", "DATA/annotations.json"], "is no report of `sightstream evaluate --json`"),
        (["RUN", "--report", "none.json"], "cannot read the report none.json"),
        (["RUN", "--about", "none.md"], "cannot read none.md"),
        (["DATA"], "cannot read the checkpoint"),
        (["DATA/annotations.json"], "is not a checkpoint of sightstream"),
        (["RUN", "--data", "DATA", "--threshold-precision", "1"], "at no score 100% of what is detected"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    run: Path, data: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    given = [argument.replace("RUN", str(run)).replace("DATA", str(data)) for argument in arguments]
    done = sightstream("package", *given, "--out", tmp_path / "p")
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert not list((tmp_path / "p").glob("*")) if (tmp_path / "p").exists() else True


def test_weights_that_do_not_fit_the_plan_are_refused(run: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "odd.pt", replace(make_checkpoint(), plan=replace(PLAN, channels=4)))
    done = sightstream("package", tmp_path / "odd.pt", "--out", tmp_path / "p")
    assert done.exit_code == 2
    assert "the weights are not of the network" in done.stderr
