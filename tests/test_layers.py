"""The import rule holds, and its contracts can fail."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("producers", "streams", "detectors", "schemas", "sinks", "infra")


def _lint_imports(directory: Path) -> subprocess.CompletedProcess[str]:
    """import-linter over the packages of a directory, with the contracts of its pyproject.toml."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    return subprocess.run([sys.executable, "-c", code], cwd=directory, capture_output=True, text=True, check=False)


def test_the_layers_are_kept() -> None:
    done = _lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("schemas/bad.py", "import streams"),
        ("schemas/bad.py", "import aiohttp"),
        ("schemas/bad.py", "import confluent_kafka"),
        ("producers/bad.py", "import sinks"),
        ("sinks/bad.py", "import detectors"),
        ("detectors/bad.py", "import producers"),
        ("streams/bad.py", "import infra"),
        ("streams/bad.py", "import torch"),
        ("infra/bad.py", "import openvino"),
    ],
)
def test_a_wrong_import_breaks_a_contract(tmp_path: Path, module: str, statement: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / module).write_text(f"{statement}\n")
    done = _lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout
    assert "BROKEN" in done.stdout


def _sources() -> list[Path]:
    return sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def test_only_settings_reads_the_environment() -> None:
    # Ultralytics and torch's OpenMP take orders by environment alone: what is written there keeps the one off the network, and lets the
    # other's threads sleep.
    allowed = {"infra/settings.py", "detectors/torch_environment.py", "detectors/ultralytics.py"}
    users = set()
    for file in _sources():
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if any(isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} for node in nodes):
            users.add(file.relative_to(ROOT).as_posix())
    assert users <= allowed


def test_packages_hold_no_code_in_init() -> None:
    assert [
        file for file in _sources() if file.name == "__init__.py" and file.read_text(encoding="utf-8").strip()
    ] == []


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    assert [
        file for file in _sources() if file.parent.parent == ROOT and file.parent.name in sys.stdlib_module_names
    ] == []
