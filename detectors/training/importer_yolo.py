"""Labels in YOLO's text files: one for each picture, one line for each object, in shares of the frame."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectors.training.found import Defect, Found, FoundLabel, FoundPicture
from detectors.training.frames import SUFFIXES
from detectors.training.importer_layouts import find_pictures, split_of
from detectors.training.polygons import Outline, around
from schemas.errors import ConfigurationError

_NAME_FILES = ("classes.txt", "obj.names", "names.txt")
_NOT_LABELS = {*_NAME_FILES, "train.txt", "val.txt", "valid.txt", "test.txt", "README.txt", "README.dataset.txt"}


def read_yolo(source: Path, names: Sequence[str] = (), pictures: Path | None = None) -> Found:
    """Read `data.yaml`, or a folder: with that file, with `images/` and `labels/`, or with labels beside the pictures.

    A line: class and box (`7 cx cy w h`), class and corners of a turned box (`7 x1 y1 ... x4 y4`), or class and polygon. A picture without
    a label file has no objects. `names`: the classes in the order of their numbers; () for those of `data.yaml` or `classes.txt`.
    `pictures`: their folder, where the layout is unusual. Raises ConfigurationError where classes or pictures are not to be found.
    """
    description = _find_description(source)
    content = _load_yaml(description) if description else {}
    folder = source if source.is_dir() else source.parent
    reader = _Reader(tuple(names) or _names_of(content, description) or _read_names(folder))
    parts = {"": [pictures]} if pictures else _parts_of(content, description) or {"": [folder]}
    found = tuple(
        picture for split, roots in parts.items() for root in roots for picture in reader.read(root, folder, split)
    )
    if not found:
        raise ConfigurationError(
            f"there are no pictures ({', '.join(sorted(SUFFIXES))}) in {', '.join(_places(parts))}"
        )
    reader.find_orphans(folder)
    return Found(reader.names, found, tuple(reader.defects))


class _Reader:
    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.defects: list[Defect] = []
        self._label_files: set[Path] = set()

    def read(self, root: Path, folder: Path, split: str) -> Iterator[FoundPicture]:
        """The pictures of a folder, or of a list of them."""
        listed = root.is_file()
        for picture in _read_list(root) if listed else find_pictures(root):
            labels = self._labels_of(picture)
            # Of the subfolders only those are kept that do not say what our layout says otherwise.
            parents = () if listed or not picture.is_relative_to(root) else picture.relative_to(root).parent.parts
            inside = picture.relative_to(folder).parts[:-1] if picture.is_relative_to(folder) else ()
            name = Path(*(part for part in parents if part != "images" and not split_of(part)), picture.name)
            guessed = next(filter(None, map(split_of, inside)), "")
            yield FoundPicture(picture, name, str(picture), labels, split=split or guessed, relative=True)

    def find_orphans(self, folder: Path) -> None:
        """Label files without a picture are defects: something was lost. Raises ConfigurationError where there is no label file at all."""
        if not self._label_files:
            raise ConfigurationError(
                f"none of the pictures in {folder} has labels in YOLO's format: no NAME.txt for any NAME.jpg"
            )
        for place in sorted({file.parent for file in self._label_files}):
            for file in sorted(place.glob("*.txt")):
                if file not in self._label_files and file.name not in _NOT_LABELS:
                    self.defects.append(Defect(str(file), "there is no picture of that name"))

    def _labels_of(self, picture: Path) -> tuple[FoundLabel, ...]:
        file = next((file for file in _label_places(picture) if file.is_file()), None)
        if file is None:
            return ()
        self._label_files.add(file)
        try:
            lines = file.read_bytes().decode("utf-8-sig").splitlines()
        except OSError as error:
            raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
        except UnicodeDecodeError:
            self.defects.append(Defect(str(file), "not UTF-8 text"))
            return ()
        return tuple(
            label
            for number, line in enumerate(lines, 1)
            if line.strip()
            for label in self._label(f"{file}, line {number}", line.split())
        )

    def _label(self, place: str, words: Sequence[str]) -> Iterator[FoundLabel]:
        try:
            class_id, *values = map(float, words)
        except ValueError:
            self.defects.append(Defect(place, f"not numbers: {' '.join(words)[:60]!r}"))
            return
        if not class_id.is_integer() or class_id < 0:
            self.defects.append(Defect(place, f"{words[0]} is not the number of a class"))
            return
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            self.defects.append(
                Defect(place, f"{len(words)} columns: a box has 5, a turned box 9, a polygon 7 or more, an odd number")
            )
            return
        name = self.names[int(class_id)] if class_id < len(self.names) else f"class {int(class_id)}"
        if len(values) == 4:
            across, down, width, height = values
            yield FoundLabel(
                name, (across - width / 2, down - height / 2, across + width / 2, down + height / 2), place
            )
        else:
            outline: Outline = tuple(zip(values[::2], values[1::2], strict=True))
            yield FoundLabel(name, around(outline), place, outline)


def _label_places(picture: Path) -> Iterator[Path]:
    """Where labels of a picture may lie: in `labels/` for the last `images/` of its path, or beside it."""
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            yield Path(*parts[:place], "labels", *parts[place + 1 :]).with_suffix(".txt")
            break
    yield picture.with_suffix(".txt")


def _find_description(source: Path) -> Path | None:
    if source.is_file():
        if source.suffix.lower() not in {".yaml", ".yml"}:
            raise ConfigurationError(f"{source} is no data.yaml of YOLO's")
        return source
    found = [file for name in ("data.yaml", "data.yml", "dataset.yaml") if (file := source / name).is_file()]
    return found[0] if found else None


def _load_yaml(file: Path) -> Mapping[str, Any]:
    try:
        import yaml  # noqa: PLC0415 - an extra brings it
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{file} needs yaml, which is not installed: pip install 'sightstream[training]'"
        ) from error
    try:
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigurationError(
            f"{file}{line}: not YAML: {getattr(error, 'problem', None) or 'unreadable'}"
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file} is no data.yaml of YOLO's: it holds no names")
    return content


def _names_of(content: Mapping[str, Any], file: Path | None) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, list):
        return tuple(map(str, names))
    if isinstance(names, dict) and names:
        if not all(isinstance(number, int) and 0 <= number < 100_000 for number in names):
            raise ConfigurationError(f"{file}: the names are not numbered from 0")
        # Numbers may be left out.
        return tuple(str(names.get(number, f"class {number}")) for number in range(max(names) + 1))
    return ()


def _read_names(folder: Path) -> tuple[str, ...]:
    for file in (place / name for place in (folder, folder / "labels") for name in _NAME_FILES):
        if file.is_file():
            try:
                lines = file.read_bytes().decode("utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"cannot read {file}: {error}") from error
            return tuple(line.strip() for line in lines if line.strip())
    raise ConfigurationError(f"nothing in {folder} names the classes: no data.yaml, no classes.txt; say --names")


def _parts_of(content: Mapping[str, Any], file: Path | None) -> dict[str, list[Path]]:
    """The folders, or lists of files, of each split that a description names."""
    if file is None:
        return {}
    root = file.parent / str(content.get("path") or "")
    if not root.is_dir():
        root = file.parent  # of the machine on which it was written
    parts: dict[str, list[Path]] = {}
    for key in ("train", "val", "valid", "test"):
        entries = content.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            place = _locate(str(entry), root, file.parent)
            if place is not None:
                parts.setdefault(split_of(key), []).append(place)
            elif key != "test":
                raise ConfigurationError(f"{file}: {key}: there is no {entry}")
    return parts


def _locate(entry: str, *roots: Path) -> Path | None:
    """A place that a description names; also without the `../` that one popular tool writes for nothing."""
    for root in roots:
        for name in (entry, entry.removeprefix("../")):
            if (root / name).exists():
                return root / name
    return None


def _read_list(file: Path) -> list[Path]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {file}: {error}") from error
    return [file.parent / line.strip() for line in lines if line.strip()]


def _places(parts: Mapping[str, Sequence[Path]]) -> list[str]:
    return [str(root) for roots in parts.values() for root in roots]
