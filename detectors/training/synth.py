"""Data sets of scenes: drawn by many processes, the same for any number of them, and resumed where they were stopped."""

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectors.training.dataset import ANNOTATIONS, IMAGES, Label, Picture, write_dataset
from schemas.errors import ConfigurationError

GENERATION = 1
"""Goes up with every change of what a seed draws: a half-made data set of another generation is not continued."""
HARD_SPLITS = ("test",)

_PARTS = ".parts"
_RECORD = "synth.json"
_CHUNK = 50


@dataclass(frozen=True, slots=True)
class SynthPlan:
    """What to draw. `splits`: pictures of each; `size`: pixels of the longest side; `hard`: all splits as hard as `test` is.

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


def synthesise(out: Path, plan: SynthPlan, jobs: int, progress: Callable[[int], object]) -> dict[str, int]:
    """Draw every split of `plan` into `out/SPLIT`, in `jobs` processes; returns the number of codes in each.

    Goes on where an earlier run with the same plan was stopped. `progress` is called with the number of pictures that are done since it
    was called last. Raises ConfigurationError where `out` holds something else, a place cannot be written (disk full), or the
    photographs cannot be read; what was drawn is kept.
    """
    _check_libraries()
    if plan.backgrounds is not None:
        from detectors.training.backgrounds import read_photographs  # noqa: PLC0415 - OpenCV, where it is needed

        read_photographs(plan.backgrounds)
    try:
        _claim(out, plan)
        todo = [chunk for split, count in plan.splits.items() for chunk in _chunks(out / split, split, count, plan)]
        open_ones = []
        for chunk in todo:
            if chunk.part.exists():
                progress(chunk.last - chunk.first)
            else:
                open_ones.append(chunk)
        _draw_all(open_ones, jobs, progress)
        return {split: _assemble(out / split, count) for split, count in plan.splits.items() if count}
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {error.filename or out}: {error.strerror}; what was drawn is kept"
        ) from error


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
    for place in (folder / IMAGES, folder / _PARTS):
        if not (folder / ANNOTATIONS).exists():
            place.mkdir(parents=True, exist_ok=True)
    if (folder / ANNOTATIONS).exists():
        return
    for first in range(0, count, _CHUNK):
        yield _Chunk(folder, split, first, min(first + _CHUNK, count), plan)


def _draw_all(chunks: Sequence[_Chunk], jobs: int, progress: Callable[[int], object]) -> None:
    if jobs == 1:
        for chunk in chunks:
            progress(_draw_chunk(chunk))
        return
    # Spawned: a fork copies threads' locks, and OpenCV has threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
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


def _draw_chunk(chunk: _Chunk) -> int:
    """Draw the pictures of a chunk and note their labels; the note is what says that they are complete."""
    import cv2  # noqa: PLC0415 - in the process that needs it

    from detectors.training.scenes import draw_scene  # noqa: PLC0415

    cv2.setNumThreads(1)
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
    return ScenePolicy(plan.size, plan.hard or chunk.split in HARD_SPLITS, photographs)


def _seed(seed: int, split: str, number: int) -> list[int]:
    """No two splits share a seed, whatever they are called."""
    return [seed, int.from_bytes(split.encode(), "little"), number]


def _assemble(folder: Path, count: int) -> int:
    """Write a split's annotations from what its chunks noted; the number of codes."""
    from detectors.training.codes import NAMES  # noqa: PLC0415
    from detectors.training.dataset import read_dataset  # noqa: PLC0415

    if (folder / ANNOTATIONS).exists():
        return sum(len(picture.labels) for picture in read_dataset(folder).pictures)
    pictures = []
    noted: list[dict[str, Any]] = []
    for file in sorted((folder / _PARTS).glob("*.json")):
        noted.extend(json.loads(file.read_text(encoding="utf-8")))
    assert len(noted) == count
    for number, entry in enumerate(noted):
        labels = tuple(
            Label(tuple(box), class_id, tuple((x, y) for x, y in outline)) for box, class_id, outline in entry["labels"]
        )
        pictures.append(Picture(folder / picture_name(number), entry["width"], entry["height"], labels))
    write_dataset(folder, NAMES, pictures)
    with suppress(OSError):
        shutil.rmtree(folder / _PARTS)
    return sum(len(picture.labels) for picture in pictures)


def _check_libraries() -> None:
    try:
        import matplotlib  # noqa: F401, PLC0415
        import zxingcpp  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigurationError(f"drawing scenes needs {error.name}: pip install 'sightstream[training]'") from error
