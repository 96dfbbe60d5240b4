"""What makes an object easy or hard to find: its size, its tilt, and how blurred and how bright its pixels are."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detectors.base import Image
from detectors.evaluation_truth import GroundTruth

Values = Mapping[int, Mapping[str, float]]
"""Of objects by id: attributes by name."""

_CONTRAST = (2, 98)
_STEEPEST = 99
# Below this many grey levels between dark and light there is no edge to measure.
_LEAST_CONTRAST = 8


class Appearance:
    """Collects `blur` and `brightness` of the objects of every image that it is shown, in `values`."""

    def __init__(self, truth: GroundTruth) -> None:
        self._truth = truth
        self.values: dict[int, dict[str, float]] = {}

    def look(self, image_id: int, image: Image) -> None:
        """Measure an image's objects; crowds and what has no pixel in the frame are left out."""
        height, width = image.pixels.shape[:2]
        frame = np.array((width, height) * 2)
        scale = frame / np.array((image.width, image.height) * 2)
        for entry in self._truth.coco.imgToAnns.get(image_id, ()):
            left, top, right, bottom = np.round(np.clip(_corners(entry["bbox"]) * scale, 0, frame)).astype(int)
            crop = image.pixels[top:bottom, left:right]
            if crop.size and not entry["iscrowd"]:
                self.values[entry["id"]] = measure_pixels(crop)


def measure_shapes(truth: GroundTruth) -> dict[int, dict[str, float]]:
    """Of every object: `size`, the root of its area, and `side`, the shorter one, in pixels; `tilt` where its outline has four corners.

    Tilt: degrees, 0..45, between the smallest rectangle around the outline and the frame; a quarter turn is none.
    """
    values = {}
    for entry in truth.coco.dataset["annotations"]:
        _, _, width, height = entry["bbox"]
        shapes = {"size": max(entry["area"], 0) ** 0.5, "side": min(width, height)}
        if entry["id"] in truth.outlines:
            shapes["tilt"] = _tilt(truth.outlines[entry["id"]])
        values[entry["id"]] = shapes
    return values


def measure_pixels(crop: NDArray[np.uint8]) -> dict[str, float]:
    """Of an object's pixels, RGB: `brightness`, their mean grey in 0..1, and `blur` in pixels, where there is an edge at all.

    Blur is the width (sigma) of the sharpest edges: a step of contrast A blurred by a Gaussian is A / (sqrt(2 pi) sigma) steep at its
    middle, so that contrast, the light and the size of what is printed make no difference. It is that of the picture as it was decoded,
    and at least about 0.7, as differences are taken over two pixels. What moved keeps the edges along its way sharp, and noise makes edges.
    Source: Elder and Zucker, "Local Scale Control for Edge Detection and Blur Estimation" (1998).
    """
    grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY).astype(np.float32)
    values = {"brightness": float(grey.mean() / 255)}
    dark, light = np.percentile(grey, _CONTRAST)
    if min(grey.shape) >= 3 and light - dark >= _LEAST_CONTRAST:
        # Scharr's weights sum to 32 for a slope of one level a pixel.
        across, down = (cv2.Scharr(grey, cv2.CV_32F, *order, scale=1 / 32) for order in ((1, 0), (0, 1)))
        steepest = np.percentile(np.hypot(across, down)[1:-1, 1:-1], _STEEPEST)
        values["blur"] = float((light - dark) / (np.sqrt(2 * np.pi) * max(steepest, 1e-6)))
    return values


def _corners(place: Sequence[Any]) -> NDArray[np.float64]:
    left, top, width, height = place
    return np.array((left, top, left + width, top + height))


def _tilt(outline: NDArray[np.float32]) -> float:
    angle = cv2.minAreaRect(outline)[2] % 90
    return float(min(angle, 90 - angle))
