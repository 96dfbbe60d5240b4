"""The optional backend: how Ultralytics is imported, and what is said where it is not there."""

import builtins
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError
from tests.support.data import ROOT

_IMPORT = """
import io, os, sys
import PIL.Image
before = PIL.Image.open
import detectors.ultralytics
assert "torch" not in sys.modules, "torch came with the module"
ultralytics = detectors.ultralytics.import_confined()
assert PIL.Image.open is before, "PIL.Image.open stayed patched"
assert ultralytics.utils.AUTOINSTALL is False
assert ultralytics.utils.SAFE_LOAD is True
assert ultralytics.__file__ != detectors.ultralytics.__file__
try:
    PIL.Image.open(io.BytesIO(b"not an image"))
except PIL.UnidentifiedImageError:
    print("confined")
"""


def test_ultralytics_is_confined_when_imported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _IMPORT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "confined"


@pytest.mark.parametrize("missing", ["ultralytics", "torch"])
def test_without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name in {"ultralytics", missing}:
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    path = tmp_path / "model.pt"
    path.write_bytes(b"anything")
    backend = real("detectors.ultralytics")
    with pytest.raises(ConfigurationError, match=r"pip install 'sightstream\[ultralytics\]'"):
        backend.load(ModelSpec(path=str(path)))


@pytest.mark.model
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"not a checkpoint")
    backend = importlib.import_module("detectors.ultralytics")
    with pytest.raises(ConfigurationError, match="not a checkpoint"):
        backend.load(ModelSpec(path=str(path)))


@pytest.mark.model
def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    """A pickle may call anything; the allow-list lets only the classes of networks through."""
    torch = importlib.import_module("torch")
    path, witness = tmp_path / "evil.pt", tmp_path / "witness"
    torch.save({"model": Evil(str(witness))}, path)
    backend = importlib.import_module("detectors.ultralytics")
    with pytest.raises(ConfigurationError):
        backend.load(ModelSpec(path=str(path)))
    assert not witness.exists()


class Evil:
    """An object whose unpickling writes a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.open, (self._path, "w")
