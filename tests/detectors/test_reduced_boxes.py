"""Boxes of an image that was decoded reduced are those of the whole image, in the whole image's pixels."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from detectors.base import Boxes, Detector, Image
from detectors.decode import decode_for
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.records import DetectParameters
from tests.support.data import shared_dir
from tests.support.images import encode, exif, photograph
from tests.support.models import yolo_onnx

__all__ = ["yolo_onnx"]

SIDE = 320
CLEAR = 0.4  # a box that scores lower may cross the threshold by a breath


@pytest.fixture(scope="module")
def detector(yolo_onnx: Path) -> Iterator[Detector]:
    opened = open_detector(ModelSpec(path=str(yolo_onnx), backend="openvino", image_size=SIDE))
    yield opened
    opened.close()


def photographs() -> list[Pillow.Image]:
    """Some of the shared photographs, enlarged to four times the model's input, or else made ones of that size."""
    shared = shared_dir()
    if shared is None:
        return [photograph(seed, 4 * SIDE, 3 * SIDE) for seed in range(4)]
    names = sorted((shared / "datasets" / "coco-val-80" / "images").iterdir())[::10]
    return [Pillow.open(io.BytesIO(name.read_bytes())).convert("RGB") for name in names]


def enlarged(image: Pillow.Image) -> Pillow.Image:
    factor = 4 * SIDE / max(image.size)
    return image.resize((round(image.width * factor), round(image.height * factor)), Pillow.Resampling.LANCZOS)


def overlap(one: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of a box (4,) with others (m, 4)."""
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(one[2:] - one[:2])
    found: NDArray[np.float32] = shared / np.maximum(areas - shared, 1)
    return found


def matched(clear: Boxes, found: Boxes) -> list[float]:
    """For each clear box the IoU of the best box of its class among those found; slivers at the edge are left out."""
    wide = (clear.xyxy[:, 2:] - clear.xyxy[:, :2]).min(axis=1) > 8
    return [
        float(overlap(clear.xyxy[row], found.xyxy[found.class_ids == clear.class_ids[row]]).max(initial=0))
        for row in np.flatnonzero(wide & (clear.scores > CLEAR))
    ]


def test_boxes_of_a_reduced_image_are_those_of_the_whole(detector: Detector) -> None:
    overlaps: list[float] = []
    for picture in map(enlarged, photographs()):
        turned = picture.transpose(Pillow.Transpose.ROTATE_90)
        content = encode(turned, "JPEG", quality=92, exif=exif(6))
        whole, reduced = (decode_for(content, 50_000_000, canvas) for canvas in (None, detector.model.canvas))
        assert reduced.frame == whole.frame
        assert whole.pixels.size > 3.9 * reduced.pixels.size
        first, second = (
            detector.detect([Image(decoded.pixels, frame=decoded.frame)], [DetectParameters()])
            for decoded in (whole, reduced)
        )
        overlaps += matched(first, second) + matched(second, first)
    assert len(overlaps) >= 4
    assert np.mean(overlaps) > 0.97
    assert np.mean(np.array(overlaps) > 0.85) > 0.95
