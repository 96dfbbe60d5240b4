"""Folders of data sets: written whole or not at all, with pictures copied or linked, and read with their splits."""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Literal, TypeAlias

from detectors.training.dataset import ANNOTATIONS, IMAGES, Dataset, Picture, read_dataset, write_dataset
from schemas.errors import ConfigurationError

SPLITS = ("train", "val", "test")

Placement: TypeAlias = Literal["copy", "hardlink", "symlink"]
"""How a picture gets into a data set: as a file of its own, as another name of the file, or as a link that names its place."""

Named: TypeAlias = tuple[Picture, PurePath]
"""A picture and what it is called below `images/`."""


def read_splits(folder: Path) -> dict[str, Dataset]:
    """The data sets of a folder by the names of its splits, in the order train, val, test; by "" where it has none.

    Raises ConfigurationError like `read_dataset`, where splits differ in their classes, and where there is no picture at all.
    """
    parts = [] if folder.is_file() else [name for name in SPLITS if (folder / name / ANNOTATIONS).is_file()]
    found = {name: read_dataset(folder / name) for name in parts} or {"": read_dataset(folder)}
    if len({dataset.names for dataset in found.values()}) > 1:
        classes = "; ".join(f"{name}: {', '.join(dataset.names)}" for name, dataset in found.items())
        raise ConfigurationError(f"the splits of {folder} differ in their classes ({classes})")
    if not any(dataset.pictures for dataset in found.values()):
        raise ConfigurationError(f"the data set {folder} holds no picture")
    return found


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when all went well; otherwise nothing is left of it.

    Raises ConfigurationError where `out` holds something already, and for any OSError of the block, such as a full disk.
    """
    out = out.absolute()
    part = out.with_name(f"{out.name}.part")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigurationError(f"{out} exists already: name a folder that does not, or an empty one")
    try:
        part.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigurationError(f"{part} is in the way: a run is writing it, or was killed: remove it then") from error
    except OSError as error:
        raise _cannot_write(out, error) from error
    try:
        yield part
        part.rename(out)
    except OSError as error:
        raise _cannot_write(out, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_pictures(
    folder: Path,
    names: tuple[str, ...],
    pictures: Iterable[Named],
    placement: Placement,
    watch: Callable[[int], object] = lambda _: None,
) -> Dataset:
    """Put pictures into `folder` like `place_pictures`, and write their annotations."""
    return write_dataset(folder, names, place_pictures(folder, pictures, placement, watch))


def place_pictures(
    folder: Path,
    pictures: Iterable[Named],
    placement: Placement,
    watch: Callable[[int], object] = lambda _: None,
) -> list[Picture]:
    """Put pictures into `folder`, each under `images/` by the name that it comes with; as they lie there.

    A name that is taken gets a number. `watch` gets 1 for each. Raises OSError, and ConfigurationError where a hard link cannot be.
    """
    taken: set[str] = set()
    placed = []
    (folder / IMAGES).mkdir(parents=True)
    for picture, name in pictures:
        target = folder / IMAGES / _claim(taken, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        _place(picture.file, target, placement)
        placed.append(replace(picture, file=target))
        watch(1)
    return placed


def name_pictures(source: Path, splits: Mapping[str, Dataset]) -> dict[str, list[Named]]:
    """The pictures of `read_splits(source)`, each with what it is called in its split."""
    folder = source if source.is_dir() else source.parent
    return {
        split: [(picture, _name_within(folder / split, picture.file)) for picture in dataset.pictures]
        for split, dataset in splits.items()
    }


def _name_within(folder: Path, file: Path) -> PurePath:
    """What a picture is called in its data set: its place below `images/`, below the folder, or else its bare name."""
    for root in (folder / IMAGES, folder):
        with suppress(ValueError):
            return file.relative_to(root)
    return PurePath(file.name)


def _claim(taken: set[str], wanted: PurePath) -> PurePath:
    """A free name like the one wanted, which leads nowhere but down."""
    down = PurePath(*(part for part in wanted.parts if part not in {"..", wanted.anchor}))
    free, number = down, 1
    # Whatever its case: not every disk tells upper from lower.
    while str(free).casefold() in taken:
        number += 1
        free = down.with_stem(f"{down.stem}-{number}")
    taken.add(str(free).casefold())
    return free


def _place(source: Path, target: Path, placement: Placement) -> None:
    if placement == "copy":
        shutil.copyfile(source, target)
    elif placement == "symlink":
        target.symlink_to(source.resolve())
    else:
        try:
            os.link(source.resolve(), target)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK}:
                raise
            raise ConfigurationError(
                f"{source} cannot be hard-linked ({error.strerror}): copy it, or symlink"
            ) from error


def _cannot_write(out: Path, error: OSError) -> ConfigurationError:
    about = f"{error.filename}: " if error.filename else ""
    return ConfigurationError(f"cannot write {out}: {about}{error.strerror}")
