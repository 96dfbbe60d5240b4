"""Data sets of scenes: drawn by many processes, the same for any number of them, and resumed where they were stopped."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from detectors.training.dataset import ANNOTATIONS, IMAGES, Dataset, Label, Picture, read_dataset, write_dataset
from schemas.errors import ConfigurationError

GENERATION = 2
"""Goes up with every change of what a seed draws: a half-made data set of another generation is not continued."""

_PARTS = ".parts"
_RECORD = "synth.json"
_CHUNK = 50
_HARD_SPLITS = ("test",)


@dataclass(frozen=True, slots=True)
class SynthPlan:
    """What to draw. `splits`: pictures of each; `size`: pixels of the longest side, from 96 to 1280; `hard`: all as hard as `test` is.

    `backgrounds`: a folder of photographs to use parts of, besides the drawn ones.
    """

    splits: Mapping[str, int]
    seed: int = 1
    size: int = 512
    hard: bool = False
    backgrounds: Path | None = None


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Pictures `first` (from 0) to `last` (not included) of a split, to be written below `folder`."""

    folder: Path
    split: str
    first: int
    last: int
    plan: SynthPlan

    @property
    def part(self) -> Path:
        return self.folder / _PARTS / f"{self.first:07d}.json"


def synthesise(out: Path, plan: SynthPlan, jobs: int, progress: Callable[[int], object]) -> dict[str, Dataset]:
    """Draw every split of `plan` into `out/SPLIT`, in `jobs` processes; returns the data sets.

    Goes on where an earlier run with the same plan was stopped. `progress` is called with the number of pictures that are done since it
    was called last. Raises ConfigurationError where `out` holds something else, a place cannot be written (disk full), a library is
    missing, or the photographs cannot be read; what was drawn is kept.
    """
    _check_libraries()
    if plan.backgrounds is not None:
        from detectors.training.backgrounds import read_photographs  # noqa: PLC0415 - OpenCV, where it is needed

        read_photographs(plan.backgrounds)
    try:
        _claim(out, plan)
        todo = [chunk for split, count in plan.splits.items() for chunk in _chunks(out / split, split, count, plan)]
        open_ones = [chunk for chunk in todo if not chunk.part.exists()]
        progress(sum(plan.splits.values()) - sum(chunk.last - chunk.first for chunk in open_ones))
        _draw_all(open_ones, jobs, progress)
        return {split: _assemble(out / split, count) for split, count in plan.splits.items()}
    except OSError as error:
        place = error.filename or out
        raise ConfigurationError(f"cannot write {place}: {error.strerror}; what was drawn is kept") from error


def picture_name(number: int) -> str:
    """The file of picture `number`, counted from 0, below its split's folder."""
    return f"{IMAGES}/{number + 1:06d}.jpg"


def _claim(out: Path, plan: SynthPlan) -> None:
    """Say whose folder this is; raise where it is somebody else's."""
    record = out / _RECORD
    said = json.dumps(
        {
            "generation": GENERATION,
            "splits": dict(plan.splits),
            "seed": plan.seed,
            "size": plan.size,
            "hard": plan.hard,
            "backgrounds": _name_backgrounds(plan.backgrounds),
        }
    )
    if record.exists():
        if record.read_text(encoding="utf-8") != said:
            raise ConfigurationError(
                f"{out} holds scenes that were drawn with other options: choose another folder, or remove it"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise ConfigurationError(f"{out} is not empty")
    out.mkdir(parents=True, exist_ok=True)
    part = record.with_suffix(".part")
    part.write_text(said, encoding="utf-8")
    part.replace(record)


def _name_backgrounds(folder: Path | None) -> list[str] | None:
    return None if folder is None else sorted(file.name for file in folder.iterdir() if file.is_file())


def _chunks(folder: Path, split: str, count: int, plan: SynthPlan) -> Iterator[_Chunk]:
    """All chunks of a split that is not finished."""
    if (folder / ANNOTATIONS).exists():
        return
    for place in (IMAGES, _PARTS):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for first in range(0, count, _CHUNK):
        yield _Chunk(folder, split, first, min(first + _CHUNK, count), plan)


def _draw_all(chunks: Sequence[_Chunk], jobs: int, progress: Callable[[int], object]) -> None:
    if jobs == 1:
        for chunk in chunks:
            progress(_draw_chunk(chunk))
        return
    # Spawned: a fork copies threads' locks, and OpenCV has threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker) as pool:
        waiting: set[Future[int]] = {pool.submit(_draw_chunk, chunk) for chunk in chunks}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    progress(future.result())
        except BrokenProcessPool as error:
            raise ConfigurationError("a process that drew scenes was ended (memory?); run again to go on") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave an interruption to the process that waits, and the other cores to the other processes; end with the one that waits."""
    import cv2  # noqa: PLC0415 - in the process that needs it

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """However that ends: killed, it cannot tell its pool, whose processes would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _draw_chunk(chunk: _Chunk) -> int:
    """Draw the pictures of a chunk and note their labels; the note is what says that they are complete."""
    from detectors.training.scenes import draw_scene  # noqa: PLC0415

    policy = _policy(chunk)
    noted: list[dict[str, Any]] = []
    for number in range(chunk.first, chunk.last):
        scene = draw_scene(_seed(chunk.plan.seed, chunk.split, number), policy)
        (chunk.folder / picture_name(number)).write_bytes(scene.jpeg)
        labels = [[label.box, label.class_id, label.outline] for label in scene.labels]
        noted.append({"width": scene.width, "height": scene.height, "labels": labels})
    part = chunk.part.with_suffix(".part")
    part.write_text(json.dumps(noted), encoding="utf-8")
    part.replace(chunk.part)
    return chunk.last - chunk.first


def _policy(chunk: _Chunk) -> Any:
    from detectors.training.backgrounds import read_photographs  # noqa: PLC0415
    from detectors.training.scenes import ScenePolicy  # noqa: PLC0415

    plan = chunk.plan
    photographs = read_photographs(plan.backgrounds) if plan.backgrounds else ()
    return ScenePolicy(plan.size, plan.hard or chunk.split in _HARD_SPLITS, photographs)


def _seed(seed: int, split: str, number: int) -> list[int]:
    """No two splits share a seed, whatever they are called."""
    return [seed, int.from_bytes(split.encode(), "little"), number]


def _assemble(folder: Path, count: int) -> Dataset:
    """Write a split's annotations from what its chunks noted, or read them where they are written."""
    from detectors.training.codes import NAMES  # noqa: PLC0415

    if (folder / ANNOTATIONS).exists():
        return read_dataset(folder)
    noted = [entry for file in sorted((folder / _PARTS).glob("*.json")) for entry in json.loads(file.read_bytes())]
    assert len(noted) == count
    pictures = [
        Picture(folder / picture_name(number), entry["width"], entry["height"], tuple(map(_label, entry["labels"])))
        for number, entry in enumerate(noted)
    ]
    write_dataset(folder, NAMES, pictures)
    shutil.rmtree(folder / _PARTS, ignore_errors=True)
    # As others will read it: its numbers are rounded, and a digest covers them.
    return read_dataset(folder)


def _label(noted: Sequence[Any]) -> Label:
    (left, top, right, bottom), class_id, outline = noted
    return Label((left, top, right, bottom), class_id, tuple((x, y) for x, y in outline))


def _check_libraries() -> None:
    for name in ("matplotlib", "zxingcpp"):
        if find_spec(name) is None:
            raise ConfigurationError(
                f"drawing scenes needs {name}, which is not installed: pip install 'sightstream[training]'"
            )
