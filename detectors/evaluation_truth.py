"""Ground truth in COCO's format, and which of its categories a model's classes are."""

import contextlib
import hashlib
import importlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError

# Of a data set in the project's own format (`detectors/training/dataset.py`), and found by habit in others.
ANNOTATIONS, IMAGES = "annotations.json", "images"


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """What is in the images. `files` and `categories`: names by id; `coco`: the same for pycocotools, annotations numbered from 1.

    `outlines`: of objects by number of annotation, float32 (4, 2) in pixels, where one of four corners is given. `digest`: `sha256:` +
    hex of the file.
    """

    coco: Any
    files: Mapping[int, str]
    categories: Mapping[int, str]
    outlines: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    digest: str = ""

    @property
    def objects(self) -> Mapping[int, Mapping[str, Any]]:
        """COCO's annotations, by number."""
        annotations: Mapping[int, Mapping[str, Any]] = self.coco.anns
        return annotations


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Which category each class of a model is. `category_ids[class_id]`: None where the ground truth has no such category.

    `warnings`: what somebody who reads the figures has to know of it, one sentence each.
    """

    category_ids: tuple[int | None, ...]
    warnings: tuple[str, ...] = ()


def import_pycocotools(module: str) -> Any:
    """A module of pycocotools. Raises ConfigurationError without the extra."""
    try:
        return importlib.import_module(f"pycocotools.{module}")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"evaluation needs {error.name}, which is not installed: pip install 'sightstream[evaluate]'"
        ) from error


def read_truth(path: Path) -> GroundTruth:
    """Ground truth of a file in COCO's own format. Raises ConfigurationError where it is none."""
    coco_type = import_pycocotools("coco").COCO
    try:
        encoded = path.read_bytes()
        content = json.loads(encoded)
        images = [{"id": image["id"], "file_name": str(image["file_name"])} for image in content["images"]]
        categories = [{"id": entry["id"], "name": str(entry["name"])} for entry in content["categories"]]
        annotations = [_annotation(number, entry) for number, entry in enumerate(content["annotations"], 1)]
        outlines = {number: _outline(entry) for number, entry in enumerate(content["annotations"], 1)}
    except OSError as error:
        raise ConfigurationError(f"cannot read the ground truth {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is not in COCO's format: {_what_is_wrong(error)}") from error
    return GroundTruth(
        as_coco(coco_type, images, categories, annotations),
        {image["id"]: image["file_name"] for image in images},
        {category["id"]: category["name"] for category in categories},
        {number: outline for number, outline in outlines.items() if outline is not None},
        f"sha256:{hashlib.sha256(encoded).hexdigest()}",
    )


def find_images(truth: GroundTruth, annotations: Path, directory: Path | None = None) -> dict[int, Path]:
    """The images' files by id, which need not exist: in `directory`, else beside the annotations or in `images/` beside them."""
    if directory is not None:
        return {image_id: directory / name for image_id, name in truth.files.items()}
    beside = annotations.parent
    return {
        image_id: beside / name if (beside / name).exists() else beside / IMAGES / name
        for image_id, name in truth.files.items()
    }


def as_coco(
    coco_type: Any,
    images: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
) -> Any:
    """A pycocotools `COCO` of these. Not its own reader and `loadRes`, which fail where there is not a single detection."""
    coco = coco_type()
    coco.dataset = {"images": list(images), "categories": list(categories), "annotations": list(annotations)}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def match_classes(labels: Sequence[str], categories: Mapping[int, str]) -> ClassMap:
    """Classes to categories by name, whatever its case; where no name is shared, by order of category id, and that is warned of.

    By name, a class or category without its like takes no part in the evaluation, which is warned of, too.
    Raises ConfigurationError where neither names nor numbers agree.
    """
    by_name = {_plain(name): category_id for category_id, name in categories.items()}
    found = tuple(by_name.get(_plain(label)) for label in labels)
    if any(category_id is not None for category_id in found):
        return ClassMap(found, tuple(_leftovers(labels, categories, found)))
    if len(labels) != len(categories):
        raise ConfigurationError(
            f"the model's {len(labels)} classes ({labels[0]} ...) share no name with the {len(categories)} categories "
            f"of the ground truth, nor are they as many"
        )
    warning = "no class has the name of a category: the n-th class is taken for the n-th category by id"
    return ClassMap(tuple(sorted(categories)), (warning,))


def _leftovers(labels: Sequence[str], categories: Mapping[int, str], found: Sequence[int | None]) -> list[str]:
    unknown = [label for label, category_id in zip(labels, found, strict=True) if category_id is None]
    unseen = [name for category_id, name in categories.items() if category_id not in found]
    lines = []
    if unknown:
        lines.append(f"classes that the ground truth does not know, left out: {', '.join(unknown)}")
    if unseen:
        lines.append(f"categories that the model does not know, left out: {', '.join(unseen)}")
    return lines


def _annotation(number: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    """An annotation as pycocotools wants it; ids are given anew, as it takes an id of 0 for no match."""
    left, top, width, height = map(float, entry["bbox"])
    if not math.isfinite(left + top + width + height):
        raise ValueError(f"a box is {entry['bbox']}")
    return {
        "id": number,
        "image_id": entry["image_id"],
        "category_id": entry["category_id"],
        "bbox": [left, top, width, height],
        "area": float(entry.get("area", width * height)),
        "iscrowd": int(entry.get("iscrowd", 0)),
    }


def _outline(entry: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """Four corners, where that is all of the segmentation; a crowd's is run lengths, and most objects have more corners."""
    shapes = entry.get("segmentation")
    if not isinstance(shapes, list) or len(shapes) != 1 or len(shapes[0]) != 8:
        return None
    return np.array(shapes[0], np.float32).reshape(4, 2)


def _plain(name: str) -> str:
    return name.strip().casefold()


def _what_is_wrong(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
