"""A data set that a tiny network learns in seconds, a recipe for it, and who looks on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detectors.training.dataset import IMAGES, Dataset, Label, Picture, write_dataset
from detectors.training.network import NetworkPlan
from detectors.training.recipe import AugmentationPlan, DataPlan, EvaluationPlan, Recipe, TrainingPlan
from detectors.training.run import Outcome, train
from detectors.training.validation import Scores

NAMES = ("dark", "light")
SIDE = 64
TINY = NetworkPlan(widths=(8, 8, 8, 8, 8), depths=(0, 0, 0, 0, 0), channels=8, head_convs=1)


def draw_squares(folder: Path, pictures: int, seed: int = 0) -> Dataset:
    """Pictures of 64x64 pixels, each with a dark or a light square on grey."""
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    drawn = []
    for number in range(pictures):
        rng = np.random.default_rng((seed, number))
        pixels = rng.integers(100, 150, (SIDE, SIDE, 3), dtype=np.uint8)
        size, kind = int(rng.integers(16, 33)), number % 2
        x, y = (int(value) for value in rng.integers(0, SIDE - size, 2))
        pixels[y : y + size, x : x + size] = 20 if kind == 0 else 230
        file = folder / IMAGES / f"{number:04d}.jpg"
        Image.fromarray(pixels).save(file, quality=90)
        drawn.append(Picture(file, SIDE, SIDE, (Label((x, y, x + size, y + size), kind),)))
    return write_dataset(folder, NAMES, drawn)


def tiny_recipe(data: Path, **changes: Any) -> Recipe:
    """Twelve steps of four pictures, a checkpoint every four, an evaluation every six, without worker processes."""
    plan = TrainingPlan(
        steps=12, batch_size=4, image_sizes=(64, 96), warmup_steps=2, checkpoint_every=4, precision="f32", workers=0
    )
    return Recipe(
        data=DataPlan(str(data / "train"), str(data / "val")),
        training=replace(plan, **changes),
        network=TINY,
        evaluation=EvaluationPlan(every=6, image_size=64, pictures=8),
        augmentation=AugmentationPlan(scale=(0.8, 1.25)),
    )


class Looker:
    """Sees everything, and asks to stop after so many steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.steps: list[int] = []
        self.scores: list[Scores] = []
        self.warnings: list[str] = []
        self.began = -1
        self._stop_after = stop_after

    def start(self, step: int, facts: dict[str, Any]) -> None:
        self.began = step

    def step(self, step: int, figures: dict[str, float]) -> None:
        self.steps.append(step)

    def evaluated(self, step: int, scores: Scores, *, best: bool) -> None:
        self.scores.append(scores)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def asks_to_stop(self) -> bool:
        return self._stop_after is not None and bool(self.steps) and self.steps[-1] >= self._stop_after


def run(recipe: Recipe, out: Path, looker: Looker | None = None, *, fresh: bool = False) -> Outcome:
    """Train, looked on by nobody in particular."""
    return train(recipe, "# a test's\n", out, looker or Looker(), fresh=fresh)
