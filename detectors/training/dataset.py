"""A data set on disk: a folder with `annotations.json` in COCO's own format and the pictures that it names, `images/` by habit.

A set with splits is a folder of such folders: `train/`, `val/`, `test/`.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from schemas.errors import ConfigurationError

ANNOTATIONS = "annotations.json"
IMAGES = "images"

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the oriented frame."""


@dataclass(frozen=True, slots=True)
class Label:
    """An object in a picture. `outline`: its polygon as (x, y) in pixels, clockwise, () where only the box is known.

    `crowd`: many objects under one box, which neither train nor count.
    """

    box: Corners
    class_id: int
    outline: tuple[tuple[float, float], ...] = ()
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A file and what is in it. `width` and `height`: pixels of the oriented frame, as the annotations say."""

    file: Path
    width: int
    height: int
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Dataset:
    """Pictures, and the names of the classes, which `Label.class_id` indexes."""

    names: tuple[str, ...]
    pictures: tuple[Picture, ...]


def read_dataset(folder: Path) -> Dataset:
    """Read `folder`, or the annotations' file itself (pictures lie beside it, or in `images/` beside it).

    Class ids are the categories in the order of their ids. Raises ConfigurationError where it is missing or not in COCO's format;
    pictures are not opened, and may be missing.
    """
    file = folder if folder.is_file() else folder / ANNOTATIONS
    try:
        content = json.loads(file.read_bytes())
        categories = sorted(content["categories"], key=lambda entry: entry["id"])
        class_ids = {entry["id"]: number for number, entry in enumerate(categories)}
        labels: dict[Any, list[Label]] = {image["id"]: [] for image in content["images"]}
        for entry in content["annotations"]:
            labels[entry["image_id"]].append(_label(entry, class_ids[entry["category_id"]]))
        pictures = tuple(_picture(file.parent, image, labels[image["id"]]) for image in content["images"])
    except OSError as error:
        raise ConfigurationError(f"cannot read the data set {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        wrong = f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)
        raise ConfigurationError(f"{file} is not in COCO's format: {wrong}") from error
    return Dataset(tuple(str(entry["name"]) for entry in categories), pictures)


def write_dataset(folder: Path, names: Sequence[str], pictures: Iterable[Picture]) -> Dataset:
    """Write `annotations.json` for pictures that lie in `folder` already; whole or not at all.

    Raises ConfigurationError where a picture lies elsewhere or the place cannot be written.
    """
    kept = tuple(pictures)
    numbers = count(1)
    content = {
        "images": [_as_image(folder, number, picture) for number, picture in enumerate(kept, 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": [
            _as_annotation(next(numbers), number, label)
            for number, picture in enumerate(kept, 1)
            for label in picture.labels
        ],
    }
    file = folder / ANNOTATIONS
    part = file.with_suffix(".part")
    try:
        part.write_text(json.dumps(content) + "\n", encoding="utf-8")
        part.replace(file)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write the data set {file}: {error.strerror}") from error
    return Dataset(tuple(names), kept)


def digest_dataset(dataset: Dataset) -> str:
    """`sha256:` + hex over the names, the labels and the pictures' bytes, in the order of the set, wherever it lies."""
    digest = hashlib.sha256(json.dumps(dataset.names).encode())
    for picture in dataset.pictures:
        labels = [(label.box, label.class_id, label.crowd) for label in picture.labels]
        digest.update(json.dumps([picture.file.name, labels]).encode())
        try:
            digest.update(hashlib.sha256(picture.file.read_bytes()).digest())
        except OSError as error:
            raise ConfigurationError(f"cannot read the picture {picture.file}: {error.strerror}") from error
    return f"sha256:{digest.hexdigest()}"


def _label(entry: dict[str, Any], class_id: int) -> Label:
    left, top, width, height = map(float, entry["bbox"])
    shapes = entry.get("segmentation")
    # A crowd's segmentation is run lengths, an object's a list of polygons, each x, y, x, y ...
    flat = shapes[0] if isinstance(shapes, list) and len(shapes) == 1 else ()
    outline = tuple((float(x), float(y)) for x, y in zip(flat[::2], flat[1::2], strict=True))
    return Label((left, top, left + width, top + height), class_id, outline, bool(entry.get("iscrowd", 0)))


def _picture(folder: Path, image: dict[str, Any], labels: Sequence[Label]) -> Picture:
    name = str(image["file_name"])
    file = folder / name
    if not file.exists() and (folder / IMAGES / name).exists():
        file = folder / IMAGES / name
    return Picture(file, int(image["width"]), int(image["height"]), tuple(labels))


def _as_image(folder: Path, number: int, picture: Picture) -> dict[str, Any]:
    if not picture.file.is_relative_to(folder):
        raise ConfigurationError(f"the picture {picture.file} is not in the data set's folder {folder}")
    name = picture.file.relative_to(folder).as_posix()
    return {"id": number, "file_name": name, "width": picture.width, "height": picture.height}


def _as_annotation(number: int, image_id: int, label: Label) -> dict[str, Any]:
    left, top, right, bottom = (round(value, 2) for value in label.box)
    outline = [round(value, 2) for point in label.outline for value in point]
    return {
        "id": number,
        "image_id": image_id,
        "category_id": label.class_id + 1,
        "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
        "area": round((right - left) * (bottom - top), 2),
        "segmentation": [outline] if outline else [],
        "iscrowd": int(label.crowd),
    }
