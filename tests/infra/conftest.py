"""What the commands about models are tried on."""

from pathlib import Path

import pytest

from tests.support.images import encode, photograph
from tests.support.models import write_tiny_yolo


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_yolo(tmp_path / "tiny.onnx")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    directory = tmp_path / "pictures"
    directory.mkdir()
    for number in range(3):
        (directory / f"{number}.png").write_bytes(encode(photograph(number, 160, 128), "PNG"))
    return directory
