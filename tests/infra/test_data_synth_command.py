"""`sightstream data synth`, as it is called."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

from infra.cli import group
from tests.support.deliveries import eventually


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["data", "synth", *map(str, arguments)])


def test_it_draws_the_splits_and_says_what_is_in_them(tmp_path: Path) -> None:
    result = run(tmp_path / "out", "--split", "train=3", "--split", "val=1", "--size", "96", "--jobs", "1")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["train", "val"]
    assert lines[1].split() == ["pictures", "3", "1"]
    assert [line.split()[0] for line in lines[3:]] == ["qr", "datamatrix", "barcode", "marker"]
    assert (tmp_path / "out" / "val" / "annotations.json").is_file()


@pytest.mark.parametrize("split", ["train", "train=0", "train=many", "../x=3"])
def test_a_split_is_a_name_and_a_number(tmp_path: Path, split: str) -> None:
    result = run(tmp_path / "out", "--split", split)
    assert result.exit_code == 2
    assert "should be like train=30000" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_split_is_named_once(tmp_path: Path) -> None:
    result = run(tmp_path / "out", "--split", "train=1", "--split", "train=2")
    assert result.exit_code == 2
    assert "a split is named twice" in result.stderr


@pytest.mark.kill
def test_its_processes_end_with_it_however_that_ends(tmp_path: Path) -> None:
    command = ["data", "synth", str(tmp_path / "out"), "--split", "train=100000", "--size", "96", "--jobs", "2"]
    process = subprocess.Popen([sys.executable, "-m", "infra.cli", *command], stderr=subprocess.DEVNULL)
    drawn = tmp_path / "out" / "train" / "images"
    eventually(lambda: drawn.is_dir() and any(drawn.iterdir()), "the first picture", 60)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait(10)
    assert len(children) >= 2
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, gone
