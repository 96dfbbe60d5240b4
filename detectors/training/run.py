"""A training run: started, gone on with after whatever ended it, and finished."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from detectors.training.batches import Batch, TrainingBatches, load
from detectors.training.checkpoint import Checkpoint, write_checkpoint
from detectors.training.dataset import Dataset, digest_dataset, read_dataset
from detectors.training.device import Device
from detectors.training.journal import Journal, describe_code
from detectors.training.network import Network
from detectors.training.optimiser import Optimiser, on_cpu
from detectors.training.pictures import check_files, name_some
from detectors.training.recipe import Recipe
from detectors.training.run_folder import RunFolder
from detectors.training.validation import Scores, Validation
from schemas.errors import ConfigurationError, FatalError

# A batch that spoils a step may come by; after so many in a row it is not the batch.
_MOST_BAD_STEPS = 5
_MOST_BROKEN_SHARE = 0.01
_STEPS_A_LINE = 20


class Watch(Protocol):
    """Who looks on. Called in the training's own thread, between steps."""

    def start(self, step: int, facts: dict[str, Any]) -> None:
        """Training begins after so many steps."""

    def step(self, step: int, figures: dict[str, float]) -> None:
        """So many steps are done; the last one's losses."""

    def evaluated(self, step: int, scores: Scores, *, best: bool) -> None:
        """What the averaged weights reach after so many steps."""

    def warn(self, message: str) -> None:
        """What the user should know, and need not act on now."""

    def asks_to_stop(self) -> bool:
        """Whether to write a checkpoint and leave."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run stands when `train` returns. `ended`: `finished`, `no_gain` (the recipe's patience is spent) or `stopped` (asked to)."""

    step: int
    ended: str
    best: dict[str, float]


def train(recipe: Recipe, recipe_text: str, out: Path, watch: Watch, *, fresh: bool = False) -> Outcome:
    """Train in the folder `out`, going on with the run there if there is one; `fresh` removes it.

    However the process ends, the run goes on from its last checkpoint, and what comes out is what would have come out.
    `recipe_text`: the recipe as it was given, to keep. Raises ConfigurationError for data, settings or a device that cannot be used,
    FatalError where the loss is no number any more or the disk refuses: the checkpoints before it are kept.
    """
    device = Device.choose(recipe.training)
    train_set, val_set = _read_sets(recipe)
    folder = RunFolder(out)
    with folder.held(), device.repeatable():
        if fresh:
            folder.clear()
        kept = folder.recall(recipe)
        fingerprint = _fingerprint(train_set, val_set)
        if kept and kept.progress and kept.progress["data"] != fingerprint:
            raise ConfigurationError(f"the data have changed since the run in {out} began; --fresh starts anew")
        facts = _gather_facts(recipe, device, train_set, kept.data_digest if kept else digest_dataset(train_set))
        folder.describe(recipe_text, facts)
        run = _Run(recipe, device, folder, watch, {**facts, "fingerprint": fingerprint})
        if kept:
            run.resume(kept)
        return run.go(train_set, Validation(Path(recipe.data.val), val_set, recipe.evaluation))


@dataclass(slots=True)
class _Course:
    """How far a run has come, and what decides when it ends."""

    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    without_gain: int = 0
    ended: str = ""


class _Run:
    def __init__(self, recipe: Recipe, device: Device, folder: RunFolder, watch: Watch, facts: dict[str, Any]) -> None:
        self._recipe, self._device, self._folder, self._watch, self._facts = recipe, device, folder, watch, facts
        torch.manual_seed(recipe.training.seed)
        self._optimiser = Optimiser(self._build(), recipe.training, device)
        self._averaged = self._build()
        self._course = _Course()
        self._bad_steps = 0
        self._broken: set[str] = set()

    def resume(self, kept: Checkpoint) -> None:
        """Go on from a checkpoint."""
        progress = kept.progress or {}
        self._course = _Course(**progress["course"])
        self._optimiser.restore(progress["optimiser"], kept.weights)

    def go(self, train_set: Dataset, validation: Validation) -> Outcome:
        """All steps that are left, or as many as there are reasons for."""
        course, plan = self._course, self._recipe.training
        self._watch.start(course.step, self._facts)
        steps = range(course.step, plan.steps) if not course.ended else range(0)
        with closing(Journal(self._folder.path, self._recipe, course.step)) as journal:
            figures: list[dict[str, float]] = []
            for step, batch in zip(steps, self._load(train_set, steps), strict=True):
                self._look_at(batch, len(train_set.pictures))
                figures += self._learn(step, batch)
                course.step = step + 1
                if course.step % _STEPS_A_LINE == 0 and figures:
                    journal.write(course.step, _mean(figures))
                    figures.clear()
                if course.step % self._recipe.evaluation.every == 0 or course.step == plan.steps:
                    self._evaluate(validation, journal)
                stopped = self._watch.asks_to_stop()
                due = course.ended or stopped or course.step % plan.checkpoint_every == 0
                # Nothing replaces the last good checkpoint while the loss is no number: that may be the end.
                if course.ended or (due and not self._bad_steps):
                    self._save(self._folder.last, whole=True)
                if course.ended or stopped:
                    break
        return Outcome(course.step, course.ended or "stopped", course.best)

    def _load(self, train_set: Dataset, steps: range) -> Iterator[Batch]:
        """The steps' batches. What kills a worker, the want of memory mostly, is said as such."""
        batches = TrainingBatches(train_set.pictures, self._recipe)
        loading = load(batches, steps, self._workers, pin=self._device.is_cuda)
        while True:
            try:
                batch = next(loading)
            except StopIteration:
                return
            except RuntimeError as error:
                raise FatalError(f"a process that prepares batches ended: {error}") from error
            yield batch

    def _learn(self, step: int, batch: Batch) -> list[dict[str, float]]:
        """The step's figures, or none for one that was not taken."""
        try:
            figures = self._optimiser.step(step, batch)
        except torch.OutOfMemoryError as error:
            size = "x".join(map(str, batch.pixels.shape[:3]))
            raise ConfigurationError(f"no memory for a batch of {size}: lower training.batch_size") from error
        if figures:
            self._bad_steps = 0
            self._watch.step(step + 1, figures)
            return [figures]
        self._bad_steps += 1
        self._watch.warn(f"step {step + 1}: the loss is not a finite number; the step is left out")
        if self._bad_steps >= _MOST_BAD_STEPS:
            last = (
                f"{self._folder.last} is the last good checkpoint"
                if self._folder.last.exists()
                else "no checkpoint yet"
            )
            raise FatalError(
                f"the loss was not a finite number in {_MOST_BAD_STEPS} steps in a row, up to step {step + 1}; {last}. "
                "Lower training.learning_rate, or set training.precision to f32"
            )
        return []

    def _look_at(self, batch: Batch, pictures: int) -> None:
        """Name each broken picture once; too many of them are a broken data set."""
        for message in batch.broken:
            if message not in self._broken:
                self._broken.add(message)
                self._watch.warn(f"left out: {message}")
        if len(self._broken) > _MOST_BROKEN_SHARE * pictures:
            raise ConfigurationError(
                f"{len(self._broken)} of {pictures} pictures cannot be used, more than {_MOST_BROKEN_SHARE:.0%}: "
                f"{name_some(sorted(self._broken))}"
            )

    def _evaluate(self, validation: Validation, journal: Journal) -> None:
        course = self._course
        self._averaged.load_state_dict(dict(self._optimiser.average.weights))
        scores = validation.score(self._averaged, self._device, self._workers)
        course.scores = {"map50": scores.map50, "map50_95": scores.map50_95}
        better = not course.best or scores.map50_95 > course.best["map50_95"]
        course.without_gain = 0 if better else course.without_gain + 1
        if better:
            course.best = {**course.scores, "step": course.step}
            self._save(self._folder.best, whole=False)
        journal.write(course.step, course.scores)
        self._watch.evaluated(course.step, scores, best=better)
        if course.step == self._recipe.training.steps:
            course.ended = "finished"
        elif 0 < self._recipe.evaluation.patience <= course.without_gain:
            course.ended = "no_gain"

    def _save(self, path: Path, *, whole: bool) -> None:
        progress = {
            "optimiser": self._optimiser.state(),
            "course": asdict(self._course),
            "data": self._facts["fingerprint"],
        }
        checkpoint = Checkpoint(
            names=tuple(self._facts["names"]),
            plan=self._recipe.network,
            image_size=self._recipe.evaluation.image_size,
            step=self._course.step,
            weights=on_cpu(self._optimiser.average.weights),
            recipe=self._recipe.as_tables(),
            data_digest=self._facts["data_digest"],
            code_version=self._facts["code_version"],
            scores=self._course.scores,
            progress=progress if whole else None,
        )
        write_checkpoint(path, checkpoint)

    def _build(self) -> Network:
        return self._device.adopt(Network(len(self._facts["names"]), self._recipe.network))

    @property
    def _workers(self) -> int:
        asked = self._recipe.training.workers
        return self._device.spare_workers if asked is None else asked


def _read_sets(recipe: Recipe) -> tuple[Dataset, Dataset]:
    train_set, val_set = (read_dataset(Path(folder)) for folder in (recipe.data.train, recipe.data.val))
    check_files(train_set, f"training set ({recipe.data.train})")
    check_files(val_set, f"validation set ({recipe.data.val})")
    if train_set.names != val_set.names:
        raise ConfigurationError(
            f"the classes differ: {', '.join(train_set.names)} in {recipe.data.train}; "
            f"{', '.join(val_set.names)} in {recipe.data.val}"
        )
    return train_set, val_set


def _fingerprint(*sets: Dataset) -> str:
    """Of labels and files' sizes: quick, and enough to see that a data set was made anew."""
    digest = hashlib.sha256()
    for dataset in sets:
        for picture in dataset.pictures:
            labels = [(label.box, label.class_id, label.crowd) for label in picture.labels]
            size = picture.file.stat().st_size
            digest.update(json.dumps([picture.file.name, size, labels]).encode())
    return digest.hexdigest()


def _gather_facts(recipe: Recipe, device: Device, train_set: Dataset, data_digest: str) -> dict[str, Any]:
    return {
        "recipe": recipe.as_tables(),
        "seed": recipe.training.seed,
        "names": list(train_set.names),
        "pictures": len(train_set.pictures),
        "data_digest": data_digest,
        "code_version": describe_code(),
        "device": device.name,
        "precision": device.precision,
        "threads": torch.get_num_threads(),
    }


def _mean(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(entry[name] for entry in figures) / len(figures) for name in figures[0]}
