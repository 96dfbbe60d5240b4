"""Labels in COCO's JSON, as COCO itself and the tools after it lay it out."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectors.training.dataset import ANNOTATIONS, IMAGES
from detectors.training.found import Defect, Found, FoundLabel, FoundPicture
from detectors.training.importer_layouts import split_of
from detectors.training.polygons import Outline, around
from schemas.errors import ConfigurationError

_FILES = (ANNOTATIONS, "_annotations.coco.json")


def read_coco(source: Path, pictures: Path | None = None) -> Found:
    """Read a file, or a folder: one with `annotations.json`, with `annotations/instances_train2017.json` ..., or of such folders by split.

    Pictures are looked for in `pictures`, or where the usual layouts have them. Categories may have any ids; classes come in the
    order of these. An object's outline is taken where it is a single polygon; a crowd's run lengths are not. Raises ConfigurationError
    where the format is another.
    """
    parts = [_File(file, split, pictures) for file, split in find_coco_files(source)]
    names = tuple(dict.fromkeys(name for part in parts for name in part.categories.values()))
    found = tuple(picture for part in parts for picture in part.read())
    return Found(names, found, tuple(defect for part in parts for defect in part.defects))


def find_coco_files(source: Path) -> list[tuple[Path, str]]:
    """The annotations' files with the splits that they are of, "" where there is but one. Raises ConfigurationError without any."""
    if source.is_file():
        return [(source, "")]
    for folder in (source, source / "annotations"):
        named = [(folder / name, "") for name in _FILES if (folder / name).is_file()]
        files = sorted(folder.glob("*.json"))
        split = [(file, name) for file in files if "instances" in file.stem and (name := split_of(file.stem))]
        split = split or [(file, name) for file in files if (name := split_of(file.stem))]
        only = [(file, "") for file in files] if len(files) == 1 else []
        if found := named or split or only:
            return found
    below = [(file, split_of(file.parent.name)) for name in _FILES for file in sorted(source.glob(f"*/{name}"))]
    if found := [(file, split) for file, split in below if split]:
        return found
    raise ConfigurationError(f"there are no labels in COCO's format in {source}: name the JSON file itself")


class _File:
    """One file of annotations."""

    def __init__(self, file: Path, split: str, pictures: Path | None) -> None:
        self._file, self._split = file, split
        self._content = _load(file)
        self._roots = [pictures, *([pictures / split] if split else [])] if pictures else list(_guess_roots(file))
        self.defects: list[Defect] = []
        entries = sorted(self._entries("categories"), key=lambda entry: _integer(entry[1]["id"]))
        self.categories = {entry["id"]: str(entry["name"]) for _, entry in entries}

    def read(self) -> Iterator[FoundPicture]:
        """Every picture with its labels, in the order of the file."""
        images = list(self._entries("images"))
        for image_id, times in Counter(image["id"] for _, image in images).items():
            if times > 1:
                raise ConfigurationError(f"{self._file}: {times} images have the id {image_id}")
        labels: dict[Any, list[FoundLabel]] = {image["id"]: [] for _, image in images}
        for place, entry in self._entries("annotations"):
            if entry["image_id"] not in labels:
                self.defects.append(Defect(place, f"there is no image with the id {entry['image_id']}"))
            elif label := self._label(place, entry):
                labels[entry["image_id"]].append(label)
        for place, image in images:
            if picture := self._picture(place, image, tuple(labels[image["id"]])):
                yield picture

    def _entries(self, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The entries of a list with their places; one without what all need is a defect."""
        needed = {
            "images": ("id", "file_name"),
            "categories": ("id", "name"),
            "annotations": ("image_id", "category_id"),
        }
        entries = self._content.get(key)
        if not isinstance(entries, list):
            raise ConfigurationError(f"{self._file} is not in COCO's format: it has no list {key!r}")
        for number, entry in enumerate(entries):
            place = f"{self._file}: {key}[{number}]"
            missing = [name for name in needed[key] if not isinstance(entry, dict) or name not in entry]
            if missing:
                self.defects.append(Defect(place, f"has no {missing[0]!r}"))
            elif not all(isinstance(entry[name], int | str) for name in needed[key]):
                self.defects.append(Defect(place, f"{' or '.join(needed[key])} is neither a number nor a string"))
            else:
                yield place, entry

    def _label(self, place: str, entry: Mapping[str, Any]) -> FoundLabel | None:
        name = self.categories.get(entry["category_id"], f"category {entry['category_id']}")
        try:
            outline = _read_outline(entry.get("segmentation"))
            if entry.get("bbox") is None and outline:
                box = around(outline)
            else:
                left, top, width, height = map(float, entry["bbox"])
                box = (left, top, left + width, top + height)
        except (KeyError, TypeError, ValueError):
            self.defects.append(Defect(place, f"bbox is not four numbers: {str(entry.get('bbox'))[:60]}"))
            return None
        return FoundLabel(name, box, place, outline, bool(entry.get("iscrowd", 0)))

    def _picture(self, place: str, image: Mapping[str, Any], labels: tuple[FoundLabel, ...]) -> FoundPicture | None:
        name = Path(str(image["file_name"]).replace("\\", "/"))
        file = next((root / name for root in self._roots if (root / name).is_file()), self._roots[0] / name)
        try:
            size = (int(image["width"]), int(image["height"])) if "width" in image and "height" in image else None
        except (TypeError, ValueError):
            self.defects.append(Defect(place, "width and height are not numbers"))
            return None
        # `images/` is where our own layout has them already.
        below = Path(*name.parts[1:]) if name.parts[:1] == (IMAGES,) else name
        return FoundPicture(file, below, place, labels, size, self._split)


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{file}, line {error.lineno}: not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not UTF-8 text") from error
    except RecursionError as error:
        raise ConfigurationError(f"{file} is not in COCO's format: it is nested too deep") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file} is not in COCO's format: it is no object")
    return content


def _guess_roots(file: Path) -> Iterator[Path]:
    """Where pictures of an annotations' file lie: beside it, in `images/`, or beside the folder that it is in, by the name of its split."""
    above, stem = file.parent.parent, file.stem.removeprefix("instances_")
    yield file.parent
    yield file.parent / IMAGES
    for folder in (above, above / IMAGES):
        yield folder / stem
        yield folder


def _integer(value: Any) -> tuple[int, str]:
    """Numbers in their order, before what is none."""
    return (value, "") if isinstance(value, int) else (2**63, str(value))


def _read_outline(shapes: Any) -> Outline:
    """The polygon of an object in one piece; () for run lengths, several pieces and none."""
    flat: Sequence[Any] = shapes[0] if isinstance(shapes, list) and len(shapes) == 1 else ()
    if not isinstance(flat, list) or len(flat) < 6 or len(flat) % 2:
        return ()
    return tuple((float(x), float(y)) for x, y in zip(flat[::2], flat[1::2], strict=True))
