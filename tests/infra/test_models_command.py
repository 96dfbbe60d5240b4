"""`sightstream models`, as it is called: tables, files, exit codes."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from detectors.openvino import precisions
from detectors.spec import ModelSpec
from infra.cli import group


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, list(map(str, arguments)))


def spoil(source: Path, out: Path, factor: float = -1) -> Path:
    """The model with other weights."""
    model = onnx.load(source)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(factor), "weights"))
    onnx.save(model, out)
    return out


def test_export_writes_model_and_report_and_prints_the_table(tiny: Path) -> None:
    result = run("models", "export", tiny, "--to", "openvino")
    assert result.exit_code == 0, result.output
    assert "worst IoU" in result.stdout
    assert "yes" in result.stdout
    assert str(tiny.with_suffix(".xml")) in result.stdout
    assert json.loads(tiny.with_name("tiny.xml.parity.json").read_text())["holds"] is True
    again = run("models", "export", tiny, "--to", "openvino")
    assert again.exit_code == 2
    assert again.stderr == f"sightstream: {tiny.with_suffix('.xml')} is there already; --force replaces it\n"
    assert run("models", "export", tiny, "--to", "openvino", "--force").exit_code == 0


def test_an_export_that_does_not_hold_is_exit_code_1_and_kept(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from detectors import export_openvino

    other = spoil(tiny, tiny.with_name("other.onnx"))
    write = export_openvino.write_ir
    monkeypatch.setattr(export_openvino, "write_ir", lambda _, out, half: write(other, out, half=half))
    result = run("models", "export", tiny, "--to", "openvino")
    assert result.exit_code == 1
    assert "NO" in result.stdout
    assert "golden-" in result.stderr
    assert tiny.with_suffix(".xml").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "openvino", "--int8"], "--calibration DIR"),
        (["--to", "openvino", "--half", "--int8"], "exclude each other"),
        (["--to", "openvino", "--calibration", "."], "--calibration is for --int8"),
        (["--to", "openvino", "--out", "x.onnx"], "should end in .xml"),
        (["--to", "openvino", "--out", "missing/x.xml"], "cannot write to missing"),
        (["--to", "teapot"], "teapot"),
    ],
)
def test_what_export_cannot_do_is_exit_code_2(tiny: Path, options: list[str], message: str) -> None:
    result = run("models", "export", tiny, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_parity_holds_for_every_backend_and_says_how_many_boxes(tiny: Path, pictures: Path) -> None:
    result = run("models", "parity", tiny, "--images", pictures, "--precision", "f32", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["holds"] is True
    assert len(said["comparisons"]) >= 3
    assert said["left_out"] == []
    assert all(comparison["images"] == 14 and comparison["compared"] > 10 for comparison in said["comparisons"])


def test_parity_leaves_out_a_precision_that_a_backend_does_not_offer_and_goes_on(tiny: Path) -> None:
    arguments = ("models", "parity", tiny, "--precision", "f32", "--precision", "int4", "--tolerance", 0, 1, 1)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("tiny.onnx on onnxruntime") == 2
    assert "left out: tiny.onnx on onnxruntime, int4: " in result.stderr
    assert "left out: tiny.onnx on openvino, int4: " in result.stderr


def test_parity_of_which_nothing_is_left_is_exit_code_2(tiny: Path) -> None:
    result = run("models", "parity", tiny, "--backend", "onnxruntime", "--precision", "bf16")
    assert result.exit_code == 2
    assert "in its own precision" in result.stderr.splitlines()[-1]


def test_parity_by_default_is_about_every_precision_on_offer(tiny: Path) -> None:
    result = run("models", "parity", tiny, "--tolerance", 0, 1, 1)
    offered = precisions(ModelSpec(path=str(tiny)))
    said = [line for line in result.stdout.splitlines() if "tiny.onnx on openvino" in line and "batch" in line]
    assert [name for name in offered if any(f", {name}, batch" in line for line in said)] == list(offered)


def test_parity_that_fails_names_image_box_and_backend(tiny: Path) -> None:
    other = spoil(tiny, tiny.with_name("other.onnx"))
    result = run("models", "parity", tiny, other, "--backend", "openvino", "--precision", "f32")
    assert result.exit_code == 1
    assert "NO" in result.stdout
    first = result.stderr.splitlines()[0]
    assert first.startswith("other.onnx on openvino")
    assert "golden-" in first
    assert "class" in first


def test_parity_by_a_tolerance_of_one_s_own(tiny: Path) -> None:
    other = spoil(tiny, tiny.with_name("other.onnx"), 1.02)
    arguments = ("models", "parity", tiny, other, "--backend", "openvino", "--precision", "f32")
    assert run(*arguments).exit_code == 1
    assert run(*arguments, "--tolerance", 0.5, 0.3, 0.1).exit_code == 0


def test_parity_refuses_what_is_no_model(tmp_path: Path) -> None:
    result = run("models", "parity", tmp_path / "missing.onnx")
    assert result.exit_code == 2
    assert "cannot read the model" in result.stderr
    assert len(result.stderr.splitlines()) == 1
