"""The wheel holds what it should, and its packages clash with nobody's."""

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGES = ("producers", "streams", "detectors", "schemas", "sinks", "infra")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = directory.glob("sightstream-*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


def test_the_wheel_holds_the_six_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_the_wheel_holds_every_source_file(wheel: zipfile.ZipFile) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    wanted = {name for name in tracked.splitlines() if not name.startswith("infra/deploy/")}
    assert wanted <= set(wheel.namelist())


def test_the_wheel_holds_schemas_lock_and_types(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {f"schemas/avro/{record}.v1.avsc" for record in ("ImageRef", "DetectionResult", "DeadLetter")} <= names
    assert "infra/broker/artifacts.lock.json" in names
    assert {"detectors/models/codes.onnx", "detectors/models/codes.md"} <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert not [name for name in names if name.startswith("infra/deploy/") or "__pycache__" in name]


def test_the_wheel_says_its_licence_and_its_command(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    text = wheel.read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    assert "ultralytics" not in "".join(
        line for line in text.splitlines() if line.startswith("Requires-Dist") and "extra" not in line
    )
    assert b"sightstream = infra.cli:main" in wheel.read(metadata.replace("METADATA", "entry_points.txt"))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_ships_a_package_of_that_name(package: str) -> None:
    module = importlib.import_module(package)
    assert Path(str(module.__file__)).parent == ROOT / package
    owners = set(importlib.metadata.packages_distributions().get(package, []))
    assert owners <= {"sightstream"}, f"{owners} ship a package {package!r}, too"


def test_constraints_pin_every_dependency_and_name_no_host() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert not [line for line in text.splitlines() if line.startswith("-") or " @ " in line]
    pinned = {line.split("==")[0] for line in text.splitlines()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {Requirement(entry).name.lower() for group in groups for entry in group} - {"sightstream"}
    assert wanted <= pinned
