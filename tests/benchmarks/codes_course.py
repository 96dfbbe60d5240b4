"""What the benchmarks of codes have in common: the model, the real pictures, and what each side finds in them."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.codes_truth import CLASSES, NOTHING, FoundBox, RealPicture, Verdict
from tests.benchmarks.engine_course import photographs, run_side
from tests.benchmarks.stage import Backstage

_MEGAPIXEL = 1_000_000


def spec_of(stage: Backstage) -> dict[str, Any]:
    """The model as a worker on this machine would open it."""
    return {"path": stage.model, "device": "cpu"}


def find_codes(stage: Backstage, pictures: Sequence[RealPicture]) -> tuple[dict[str, Any], list[list[FoundBox]]]:
    """What the engine says of itself, and its boxes of each picture."""
    paths = [str(picture.file) for picture in pictures]
    said = run_side(
        "codes", {"spec": spec_of(stage), "paths": paths, "cache": str(stage.scratch / "engine")}, stage.scratch
    )
    return said, [as_boxes(rows) for rows in said.pop("boxes")]


def as_boxes(rows: Sequence[Sequence[Any]]) -> list[FoundBox]:
    """Rows as sides print them."""
    return [FoundBox((left, top, right, bottom), label, score) for left, top, right, bottom, label, score in rows]


def read_pixels(path: Path, mode: int) -> NDArray[np.uint8]:
    """A picture as OpenCV reads it, blue first if in colour. Raises RuntimeError where it cannot."""
    pixels = cv2.imread(str(path), mode)
    if pixels is None:
        raise RuntimeError(f"OpenCV does not read {path}")
    return np.asarray(pixels, np.uint8)


@cache
def write_megapixels(stage: Backstage) -> list[str]:
    """Photographs as JPEGs of a megapixel each."""
    folder = stage.scratch / "megapixels"
    folder.mkdir()
    for path in sorted(photographs(stage).glob("*.jpg")):
        pixels = read_pixels(path, cv2.IMREAD_COLOR)
        gain = (_MEGAPIXEL / (pixels.shape[0] * pixels.shape[1])) ** 0.5
        large = cv2.resize(pixels, None, fx=gain, fy=gain, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / path.name), large, (cv2.IMWRITE_JPEG_QUALITY, 92))
    return [str(path) for path in sorted(folder.iterdir())]


def count(pictures: Sequence[RealPicture], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Of each class and of all how many of the known codes were found; alarms; codes of unknown place that were suspected."""
    marks: Mapping[str, list[bool]] = {label: [] for label in CLASSES}
    for picture, verdict in zip(pictures, verdicts, strict=True):
        for code, found in zip(picture.codes, verdict.found, strict=True):
            marks[code.label].append(found)
    together = [mark for label in CLASSES for mark in marks[label]]
    suspected = [verdict.suspected for verdict in verdicts if verdict.suspected is not None]
    return {
        "found": {label: sum(values) for label, values in marks.items()} | {"all": sum(together)},
        "known": {label: len(values) for label, values in marks.items()} | {"all": len(together)},
        "alarms": sum(verdict.alarm for verdict in verdicts),
        "look_alikes": sum(picture.contains == NOTHING for picture in pictures),
        "suspected": sum(suspected),
        "placeless": len(suspected),
    }


def sheet_path(root: Path) -> Path:
    """Where failures are shown: not in the docs, as the pictures are not the project's."""
    return root / "var" / "codes-real" / "failures.jpg"
