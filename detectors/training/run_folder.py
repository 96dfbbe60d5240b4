"""The folder of a run: who works in it, what it holds, and whether a run there can go on."""

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detectors.training.checkpoint import PREVIOUS, Checkpoint, read_checkpoint
from detectors.training.journal import METRICS, write_text
from detectors.training.recipe import Recipe
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)

LAST, BEST = "last.pt", "best.pt"
_RUN, _RECIPE, _BOARD, _LOCK = "run.json", "recipe.toml", "tensorboard", ".lock"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`last.pt` and `best.pt` (see `Checkpoint`), `recipe.toml` as given, `run.json`, `metrics.jsonl`, `tensorboard/`."""

    path: Path

    @property
    def last(self) -> Path:
        """The checkpoint that a run goes on from."""
        return self.path / LAST

    @property
    def best(self) -> Path:
        """The checkpoint with the best score so far."""
        return self.path / BEST

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, and keep others from training in it. Raises ConfigurationError where one does, or there can be no folder."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / _LOCK).open("w")
        except OSError as error:
            raise ConfigurationError(f"cannot use the folder {self.path}: {error.strerror}") from error
        with file:
            try:
                # The kernel lets go of it when the process ends, however it ends.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigurationError(f"another process trains in {self.path}") from error
            yield

    def recall(self, recipe: Recipe) -> Checkpoint | None:
        """Where the run here stands, None where there is none. Raises ConfigurationError where it is a run of another recipe."""
        before = self.last.with_name(f"{LAST}{PREVIOUS}")
        if not self.last.exists() and not before.exists():
            return None
        try:
            checkpoint = read_checkpoint(self.last)
        except ConfigurationError as error:
            if not before.exists():
                raise ConfigurationError(f"{error}; --fresh starts anew") from error
            log.warning("%s; going on from the one before it", error)
            checkpoint = read_checkpoint(before)
        if differing := recipe.differences(checkpoint.recipe):
            raise ConfigurationError(
                f"the run in {self.path} has another recipe: {'; '.join(differing)}. Give another --out, or --fresh to start anew"
            )
        if checkpoint.progress is None:
            raise ConfigurationError(f"{self.last} holds weights alone: a run cannot go on from it")
        return checkpoint

    def clear(self) -> None:
        """Remove what a run leaves; other files stay."""
        for name in (LAST, BEST):
            for file in self.path.glob(f"{name}*"):
                file.unlink()
        for name in (METRICS, _RUN, _RECIPE):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / _BOARD, ignore_errors=True)

    def describe(self, recipe_text: str, facts: Mapping[str, Any]) -> None:
        """Write down the recipe as it was given, and what else is known of the run."""
        write_text(self.path / _RECIPE, recipe_text)
        about = {**facts, "torch": str(torch.__version__)}
        write_text(self.path / _RUN, json.dumps(about, indent=2) + "\n")
