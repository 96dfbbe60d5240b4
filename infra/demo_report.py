"""What the demo found, read back from its Parquet files: average precision where there is truth, and pictures to look at."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import cv2
import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from detectors.average_precision import Labelled, average_precision
from detectors.boxes import Found
from detectors.training.dataset import Dataset, Picture

SHEET = "contact-sheet.jpg"
# Of a folder with thousands of photographs nobody looks at all.
_MOST_PICTURES = 100
_COLUMNS, _TILE = 4, 480

_Pixels = NDArray[np.uint8]
Detections = Sequence[Mapping[str, Any]]
"""As they stand in the files: label, class_id, score, x1, y1, x2, y2."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """`map50`: the mean of `classes`, average precision at IoU 0.5 by label; of `objects` labelled ones in `pictures` pictures."""

    map50: float
    classes: Mapping[str, float]
    objects: int
    pictures: int


def read_detections(lake: Path, batch: str) -> dict[str, Detections]:
    """What was found in each image of a batch, by URI; of an image that came several times the first."""
    files = ds.dataset(lake, format="parquet", partitioning="hive")
    table = files.to_table(columns=["uri", "detections"], filter=pc.field("batch_id") == batch)
    found: dict[str, Detections] = {}
    for uri, detections in zip(table.column("uri").to_pylist(), table.column("detections").to_pylist(), strict=True):
        found.setdefault(uri, detections)
    return found


def measure(truth: Dataset, detections: Mapping[str, Detections]) -> Accuracy | None:
    """How well the detections of all scores agree with the truth, by labels' names; None where no label is shared with it.

    A picture without detections counts as one in which nothing was found.
    """
    known = {box["label"] for boxes in detections.values() for box in boxes}
    if not known & set(truth.names):
        return None
    pictures = [_labelled(picture) for picture in truth.pictures]
    found = [_found(detections.get(picture.file.absolute().as_uri(), ()), truth.names) for picture in truth.pictures]
    scores = {name: average_precision(pictures, found, class_id) for class_id, name in enumerate(truth.names)}
    classes = {name: score for name, score in scores.items() if score is not None}
    objects = sum(int((~picture.crowds).sum()) for picture in pictures)
    return Accuracy(float(np.mean(list(classes.values()))), classes, objects, len(pictures))


def draw_pictures(detections: Mapping[str, Detections], folder: Path) -> int:
    """Write each picture with its boxes, at most 100, and a contact sheet of all; how many."""
    folder.mkdir(parents=True, exist_ok=True)
    tiles = []
    for number, (uri, boxes) in enumerate(sorted(detections.items())[:_MOST_PICTURES], 1):
        file = Path(unquote_to_bytes(urlsplit(uri).path).decode())
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if picture is None:  # of a kind that the pipeline reads and OpenCV does not
            continue
        for box in boxes:
            _draw_box(picture, box)
        cv2.imwrite(str(folder / f"{number:03}-{file.stem}.jpg"), picture)
        tiles.append(_tile(picture))
    if tiles:
        cv2.imwrite(str(folder / SHEET), _sheet(tiles))
    return len(tiles)


def _labelled(picture: Picture) -> Labelled:
    labels = picture.labels
    return Labelled(
        np.array([label.box for label in labels], np.float64).reshape(-1, 4),
        np.array([label.class_id for label in labels], np.intp),
        np.array([label.crowd for label in labels], np.bool_),
    )


def _found(boxes: Iterable[Mapping[str, Any]], names: Sequence[str]) -> Found:
    mine = [box for box in boxes if box["label"] in names]
    corners = [[box[side] for side in ("x1", "y1", "x2", "y2")] for box in mine]
    return Found(
        np.array(corners, np.float32).reshape(-1, 4),
        np.array([box["score"] for box in mine], np.float32),
        np.array([names.index(box["label"]) for box in mine], np.int32),
    )


def _draw_box(picture: _Pixels, box: Mapping[str, Any]) -> None:
    thick = max(2, round(max(picture.shape) / 400))
    colour = _colour(box["class_id"])
    left, top, right, bottom = (round(box[side]) for side in ("x1", "y1", "x2", "y2"))
    cv2.rectangle(picture, (left, top), (right, bottom), colour, thick)
    text, scale = f"{box['label']} {box['score']:.2f}", thick / 4
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, max(1, thick // 2))
    # Above the box, or within it where there is no room.
    foot = top if top > 2 * height else top + 2 * height
    left = max(0, min(left, picture.shape[1] - width))
    cv2.rectangle(picture, (left, foot - height - 2 * thick), (left + width, foot), colour, -1)
    at = (left, foot - thick)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), max(1, thick // 2), cv2.LINE_AA)


def _colour(class_id: int) -> tuple[int, int, int]:
    """BGR, far from those of its neighbours by the golden ratio; never light, as white is written on it."""
    hue = int(class_id * 0.618 * 180) % 180
    blue, green, red = cv2.cvtColor(np.array([[[hue, 255, 190]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red


def _tile(picture: _Pixels) -> _Pixels:
    gain = _TILE / max(picture.shape[:2])
    size = tuple(max(1, round(side * gain)) for side in picture.shape[1::-1])
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    tile = np.full((_TILE, _TILE, 3), 32, np.uint8)
    top, left = ((_TILE - side) // 2 for side in small.shape[:2])
    tile[top : top + small.shape[0], left : left + small.shape[1]] = small
    return tile


def _sheet(tiles: Sequence[_Pixels]) -> _Pixels:
    blank = np.full_like(tiles[0], 32)
    rows = [[*tiles[start : start + _COLUMNS]] for start in range(0, len(tiles), _COLUMNS)]
    width = max(map(len, rows))
    return np.vstack([np.hstack([*row, *[blank] * (width - len(row))]) for row in rows])
