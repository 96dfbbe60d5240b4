"""Labels of other formats into a data set of ours: what was found is checked against the pictures, then written whole or not at all."""

import difflib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from detectors.training.dataset import Corners, Dataset, Label, Picture
from detectors.training.folders import SPLITS, Placement, new_folder, read_splits, write_pictures
from detectors.training.found import Defect, Found, FoundLabel, FoundPicture
from detectors.training.frames import read_frame
from detectors.training.polygons import clockwise
from schemas.errors import ConfigurationError

# Boxes are rounded in many ways, which is no defect: up to so many pixels beyond the frame they are cut to it in silence.
_SLACK_PX = 1.0
_READERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPolicy:
    """What becomes of the labels.

    `names`: the classes of the data set, in order; () for those of the source. `renames`: old -> new; classes of the same new name
    become one. `drop` and `only`: classes, by their old names, to leave out, or to leave all others out. `drop_unknown`: whether labels
    of no known class are left out, rather than a defect.
    """

    names: tuple[str, ...] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()
    drop_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Import:
    """What would be written: classes, pictures by split ("" where there are none), each with its name; and what is wrong."""

    names: tuple[str, ...]
    splits: Mapping[str, Sequence[tuple[Picture, Path]]]
    defects: tuple[Defect, ...]


def plan_import(found: Found, policy: ImportPolicy, watch: Callable[[int], object] = lambda _: None) -> Import:
    """Check what a reader found against the pictures, of which the headers are read; nothing is written.

    `watch` gets 1 for each picture. Raises ConfigurationError for options that name no class, and where no picture is left.
    """
    _check_options(found, policy)
    names = policy.names or _name_classes(found.names, policy)
    settle = _Settling(names, policy)
    with ThreadPoolExecutor(_READERS) as pool:
        splits: dict[str, list[tuple[Picture, Path]]] = {}
        for picture, frame in zip(found.pictures, pool.map(_try_frame, found.pictures), strict=True):
            settled = settle.picture(picture, frame)
            if settled is not None:
                splits.setdefault(picture.split, []).append((settled, picture.name))
            watch(1)
    defects = (*found.defects, *settle.defects)
    if not splits and not defects:
        raise ConfigurationError("there is no picture in the source")
    ordered = {split: splits[split] for split in ("", *SPLITS) if split in splits}
    return Import(names, ordered, defects)


def write_import(
    plan: Import, out: Path, placement: Placement, watch: Callable[[int], object] = lambda _: None
) -> dict[str, Dataset]:
    """Write a plan as the folder `out`, defects or not; the data sets by split. Raises ConfigurationError, and leaves nothing behind."""
    if not any(plan.splits.values()):
        raise ConfigurationError("no picture is left to import")
    with new_folder(out) as folder:
        for split, pictures in plan.splits.items():
            write_pictures(folder / split, plan.names, pictures, placement, watch)
    return read_splits(out)


def _check_options(found: Found, policy: ImportPolicy) -> None:
    known = {*found.names, *(label.name for picture in found.pictures for label in picture.labels)}
    for option, names in (("map", policy.renames), ("drop", policy.drop), ("only", policy.only)):
        for name in sorted(set(names) - known):
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known)) or 'none'}"
            raise ConfigurationError(f"--{option} {name}: there is no such class in the source; {hint}")


def _name_classes(names: Sequence[str], policy: ImportPolicy) -> tuple[str, ...]:
    """The classes that are kept, by their new names, each once, in the order of the source."""
    kept = (name for name in names if _is_kept(name, policy))
    return tuple(dict.fromkeys(policy.renames.get(name, name) for name in kept))


def _is_kept(name: str, policy: ImportPolicy) -> bool:
    return name not in policy.drop and (not policy.only or name in policy.only)


def _try_frame(picture: FoundPicture) -> tuple[tuple[int, int], bool] | str:
    """Its frame, or why there is none."""
    try:
        return read_frame(picture.file)
    except FileNotFoundError:
        return "there is no such picture"
    except OSError as error:
        return f"the picture cannot be read: {error.strerror}"
    except ValueError as error:
        return f"the picture cannot be read: {error}"


class _Settling:
    """Turns what was found into pictures and labels, and collects what is wrong."""

    def __init__(self, names: Collection[str], policy: ImportPolicy) -> None:
        self.defects: list[Defect] = []
        self._ids = {name: number for number, name in enumerate(names)}
        self._policy = policy

    def picture(self, found: FoundPicture, read: tuple[tuple[int, int], bool] | str) -> Picture | None:
        """The picture with its labels, or None where it must be left out."""
        if isinstance(read, str):
            self._note(found.place, f"{found.file}: {read}")
            return None
        frame, turned = read
        if found.size is not None and found.size != frame:
            self._note(found.place, _explain_sizes(found, frame, turned))
            return None
        labels = (self._label(label, frame, relative=found.relative) for label in found.labels)
        return Picture(found.file, *frame, tuple(label for label in labels if label is not None))

    def _label(self, found: FoundLabel, frame: tuple[int, int], *, relative: bool) -> Label | None:
        if not _is_kept(found.name, self._policy):
            return None
        name = self._policy.renames.get(found.name, found.name)
        if name not in self._ids:
            if not self._policy.drop_unknown:
                self._note(
                    found.place, f"the label {name!r} is unknown: the classes are {', '.join(self._ids) or 'none'}"
                )
            return None
        if relative:
            found = _scale(found, frame)
        box = self._fit(found, frame)
        return None if box is None else Label(box, self._ids[name], clockwise(found.outline), found.crowd)

    def _fit(self, found: FoundLabel, frame: tuple[int, int]) -> Corners | None:
        """The box within the frame, or None."""
        left, top, right, bottom = found.box
        if not all(map(math.isfinite, (*found.box, *(value for point in found.outline for value in point)))):
            self._note(found.place, "the box is not of finite numbers")
            return None
        if right <= left or bottom <= top:
            self._note(found.place, f"the box is empty: {right - left:g} x {bottom - top:g}")
            return None
        beyond = max(-left, -top, right - frame[0], bottom - frame[1])
        if beyond > _SLACK_PX:
            self._note(found.place, f"the box reaches {beyond:.1f} px beyond the frame of {frame[0]}x{frame[1]}")
        left, right = (min(max(value, 0.0), frame[0]) for value in (left, right))
        top, bottom = (min(max(value, 0.0), frame[1]) for value in (top, bottom))
        return (left, top, right, bottom) if right > left and bottom > top else None

    def _note(self, place: str, what: str) -> None:
        self.defects.append(Defect(place, what))


def _explain_sizes(found: FoundPicture, frame: tuple[int, int], turned: bool) -> str:
    assert found.size is not None
    claimed, seen = (f"{width}x{height}" for width, height in (found.size, frame))
    why = " (turned by its EXIF orientation; labels must be of the upright picture)" if turned else ""
    return f"labels are of a picture of {claimed}, but {found.file} has {seen}{why}"


def _scale(found: FoundLabel, frame: tuple[int, int]) -> FoundLabel:
    """From shares of the frame to pixels."""
    width, height = frame
    left, top, right, bottom = found.box
    return replace(
        found,
        box=(left * width, top * height, right * width, bottom * height),
        outline=tuple((x * width, y * height) for x, y in found.outline),
    )
