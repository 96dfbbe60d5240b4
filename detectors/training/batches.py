"""The batches of a run: what a step sees is a function of the recipe's seed and the step's number, whoever asks and when."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from signal import SIG_IGN, SIGINT, signal
from typing import Any, Self

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detectors.training import dataset as data
from detectors.training.augmentation import calmed, compose
from detectors.training.losses import Targets
from detectors.training.pictures import BrokenPictureError, read_sample
from detectors.training.placing import PAD, Sample
from detectors.training.recipe import Recipe
from detectors.training.schedule import is_calm, sizes_of

# Kinds of draws that share a seed and must not be alike.
_ORDER, _STEP, _PICTURE = 0, 1, 2
# Pictures that are tried in the place of one that is broken.
_REPLACEMENTS = 20
_NO_BOXES = np.empty((0, 4), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A step's input. `pixels`: uint8 (n, side, side, 3), RGB; `targets`: one for each; `broken`: what could not be used, and why."""

    pixels: Tensor
    targets: tuple[Targets, ...]
    broken: tuple[str, ...] = ()

    def pin_memory(self) -> Self:
        """The same, its pixels where a GPU copies them from by itself; the loader calls it."""
        return replace(self, pixels=self.pixels.pin_memory())


class TrainingBatches(Dataset[Batch]):
    """A batch by the number of its step. All pictures are seen once, in random order, before one is seen again."""

    def __init__(self, pictures: Sequence[data.Picture], recipe: Recipe) -> None:
        self._pictures = pictures
        self._plan = recipe.training
        self._strong, self._calm = recipe.augmentation, calmed(recipe.augmentation)

    def __len__(self) -> int:
        return self._plan.steps

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, 0-based."""
        plan = self._plan
        side = int(np.random.default_rng((plan.seed, _STEP, step)).choice(sizes_of(step, plan)))
        broken: list[str] = []
        places = range(step * plan.batch_size, (step + 1) * plan.batch_size)
        samples = [self._compose(place, side, step, broken) for place in places]
        pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples]))
        targets = tuple(
            Targets(torch.from_numpy(sample.boxes), torch.from_numpy(sample.class_ids)) for sample in samples
        )
        return Batch(pixels, targets, tuple(broken))

    def _compose(self, place: int, side: int, step: int, broken: list[str]) -> Sample:
        """The input at a place of the endless row of all inputs."""
        rng = np.random.default_rng((self._plan.seed, _PICTURE, place))
        plan = self._calm if is_calm(step, self._plan) else self._strong
        epoch, number = divmod(place, len(self._pictures))
        chosen = int(_order(self._plan.seed, epoch, len(self._pictures))[number])

        def draw() -> Sample:
            return self._read(int(rng.integers(len(self._pictures))), side, broken)

        return compose(self._read(chosen, side, broken), draw, side, plan, rng)

    def _read(self, number: int, side: int, broken: list[str]) -> Sample:
        """The picture, or the next one that is not broken."""
        for offset in range(_REPLACEMENTS):
            picture = self._pictures[(number + offset) % len(self._pictures)]
            try:
                return read_sample(picture, side)
            except BrokenPictureError as error:
                broken.append(str(error))
        return Sample(np.full((side, side, 3), PAD, np.uint8), _NO_BOXES, _NO_BOXES[:, 0].astype(np.int64), _NO_BOXES)


def load(batches: Dataset[Any], numbers: Sequence[int], workers: int, *, pin: bool = False) -> Iterator[Any]:
    """These entries in order, made ahead by so many processes; by this one, when asked for, with 0."""
    loader: DataLoader[Any] = DataLoader(
        batches,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=3 if workers else None,
        worker_init_fn=_start_worker,
        # Not by a fork of this process, whose threads may hold locks at that moment.
        multiprocessing_context="forkserver" if workers else None,
        pin_memory=pin,
    )
    return iter(loader)


def _start_worker(_: int) -> None:
    """One thread each, or they would fight for the cores; an interrupt is the trainer's to answer."""
    cv2.setNumThreads(0)
    signal(SIGINT, SIG_IGN)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, pictures: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(pictures)
