"""Real pictures of codes, and which boxes are right. Pure but for reading the truth."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.support.data import shared_dir

CLASSES = ("qr", "datamatrix", "barcode")
NOTHING = "none"
_LEAST_IOU = 0.5
# Of a linear code only the scanned part of its height is known: how much of that a box must hold, and how much longer it may be.
_LEAST_HELD, _LEAST_LENGTH = 0.8, 0.6


@dataclass(frozen=True, slots=True)
class FoundBox:
    """What a detector found: `corners` are left, top, right, bottom in pixels."""

    corners: tuple[float, float, float, float]
    label: str
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class KnownCode:
    """A code whose place a decoder told. `quad`: its corners in pixels, clockwise; of a linear code the part that was scanned."""

    label: str
    quad: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class RealPicture:
    """A file, the class of what is in it ("none" for a look-alike), and the codes whose place is known: maybe none."""

    file: Path
    contains: str
    codes: tuple[KnownCode, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which of a picture's known codes were found; whether it is a look-alike in which anything was; and, where there is a code of
    unknown place, whether one of its class was found at all."""

    found: tuple[bool, ...]
    alarm: bool
    suspected: bool | None


def read_pictures() -> list[RealPicture]:
    """The shared pictures, in the order of their names. Raises RuntimeError where they are not."""
    shared = shared_dir()
    if shared is None:
        raise RuntimeError("this benchmark needs the pictures ../shared/datasets/codes-real, which are not here")
    folder = shared / "datasets" / "codes-real"
    entries = json.loads((folder / "truth.json").read_bytes())
    pictures = [
        RealPicture(
            folder / "images" / entry["file"],
            entry["contains"],
            tuple(
                KnownCode(code["label"], tuple((float(x), float(y)) for x, y in code["quad"]))
                for code in entry["codes"]
            ),
        )
        for entry in entries
    ]
    return sorted(pictures, key=lambda picture: picture.file)


def judge(picture: RealPicture, boxes: Sequence[FoundBox]) -> Verdict:
    """Each box, best first, is right for one code at most."""
    free, found = sorted(boxes, key=lambda box: -box.score), []
    for code in picture.codes:
        right = next((box for box in free if is_right(code, box)), None)
        found.append(right is not None)
        if right is not None:
            free.remove(right)
    placeless = picture.contains != NOTHING and not picture.codes
    suspected = any(box.label == picture.contains for box in boxes) if placeless else None
    return Verdict(tuple(found), picture.contains == NOTHING and bool(boxes), suspected)


def is_right(code: KnownCode, box: FoundBox) -> bool:
    """Whether a box is of the code's class and in its place.

    A QR code or a Data Matrix by IoU with the box around its outline, at least 0.5. A linear code by what is known of it: the box holds
    at least 0.8 of the quad's area, and the quad's longer side is at least 0.6 of the box's.
    """
    if code.label != box.label:
        return False
    quad = np.array(code.quad, np.float32)
    left, top, right, bottom = box.corners
    if code.label != "barcode":
        return _iou(box_around(quad), box.corners) >= _LEAST_IOU
    frame = np.array(((left, top), (right, top), (right, bottom), (left, bottom)), np.float32)
    shared, _ = cv2.intersectConvexConvex(quad, frame)
    sides = np.linalg.norm(quad - np.roll(quad, -1, axis=0), axis=1)
    return bool(
        shared >= _LEAST_HELD * cv2.contourArea(quad)
        and float(sides.max()) >= _LEAST_LENGTH * max(right - left, bottom - top)
    )


def box_around(quad: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of points (n, 2)."""
    left, top = quad.min(axis=0).tolist()
    right, bottom = quad.max(axis=0).tolist()
    return left, top, right, bottom


def _iou(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    shared = max(width, 0) * max(height, 0)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, two))
    return shared / max(sum(areas) - shared, 1e-9)
