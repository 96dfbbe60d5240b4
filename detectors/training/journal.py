"""What a run leaves to look at: `run.json`, `metrics.jsonl`, and TensorBoard's files where the recipe asks for them."""

import json
import os
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from detectors.training.recipe import Recipe
from schemas.errors import ConfigurationError, FatalError

METRICS = "metrics.jsonl"
RUN = "run.json"


class Journal:
    """Figures by step, in `metrics.jsonl` and, with the recipe's tracker `tensorboard`, in its files. Close it.

    `first_step`: where the run goes on; what was written of steps from there on is forgotten. Raises FatalError where the disk refuses.
    """

    def __init__(self, folder: Path, recipe: Recipe, first_step: int) -> None:
        self._path = folder / METRICS
        self._board = (
            _open_board(folder / "tensorboard", recipe, first_step) if recipe.tracker == "tensorboard" else None
        )
        self._forget(first_step)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures after so many steps, by name."""
        line = json.dumps({"step": step} | {name: _rounded(value) for name, value in figures.items()})
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise FatalError(f"cannot write {self._path}: {error.strerror}") from error
        if self._board:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """What is in memory is written."""
        if self._board:
            self._board.close()

    def _forget(self, first_step: int) -> None:
        """Drop lines of steps that come again, and half a line that a kill left."""
        if not self._path.exists():
            return
        kept = [line for line in self._path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= first_step]
        write_text(self._path, "".join(f"{line}\n" for line in kept))


def write_text(path: Path, text: str) -> None:
    """A small file, whole or not at all. Raises FatalError where the disk refuses."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise FatalError(f"cannot write {path}: {error.strerror}") from error


def describe_code() -> str:
    """The package's version, and the commit where it runs from a git checkout: `0.1.0+git.1a2b3c4`, `.dirty` with changes in it."""
    said = version("sightstream")
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return said
    try:
        commit = _git(root, "rev-parse", "--short", "HEAD")
        return f"{said}+git.{commit}" + (".dirty" if _git(root, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return said


def _git(root: Path, *words: str) -> str:
    # Without a lock, as somebody may be committing.
    command = ["git", "--no-optional-locks", "-C", os.fspath(root), *words]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=10)  # noqa: S603 - fixed words
    return done.stdout.strip()


def _open_board(folder: Path, recipe: Recipe, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - only where it is asked for
    except ImportError as error:
        raise ConfigurationError("tracker tensorboard needs an extra: pip install 'sightstream[training]'") from error
    board = SummaryWriter(os.fspath(folder), purge_step=first_step + 1)
    board.add_text("recipe", f"```json\n{json.dumps(recipe.as_tables(), indent=2)}\n```", first_step)
    return board


def _rounded(value: float) -> float | None:
    """Six digits; JSON has no NaN."""
    return float(f"{value:.6g}") if value - value == 0 else None


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
