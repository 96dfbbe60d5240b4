"""Where pictures land on a network's input: turned, scaled, cut, side by side; and what becomes of their objects."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

PAD = 114
"""The grey around a picture, as in the engine's letterbox."""

# The least side in pixels of an object that still teaches something.
_LEAST_SIDE = 2.0
_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}

Area = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; the last two just outside."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A picture for training. `pixels`: uint8 (h, w, 3), RGB. `boxes`: float32 (m, 4), xyxy in its pixels; `class_ids`: int64 (m,).

    `hidden`: float32 (k, 4), boxes of what must not be seen, since it is neither an object to find nor background.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    hidden: NDArray[np.float32]


def turn(sample: Sample, quarters: int, *, mirrored: bool) -> Sample:
    """Mirrored left to right or not, then turned by so many quarters to the left."""
    if mirrored:
        width = sample.pixels.shape[1]
        mirror = np.array([-1, 1, -1, 1], np.float32), np.array([width, 0, width, 0], np.float32)
        boxes, hidden = ((boxes * mirror[0] + mirror[1])[:, [2, 1, 0, 3]] for boxes in (sample.boxes, sample.hidden))
        sample = replace(sample, pixels=cv2.flip(sample.pixels, 1), boxes=boxes, hidden=hidden)
    for number in range(quarters):
        # (x, y) -> (y, width - x), so that a box's right side becomes its top.
        width = sample.pixels.shape[number % 2 == 0]
        flip = np.array([1, -1, 1, -1], np.float32), np.array([0, width, 0, width], np.float32)
        boxes, hidden = (boxes[:, [1, 2, 3, 0]] * flip[0] + flip[1] for boxes in (sample.boxes, sample.hidden))
        sample = replace(sample, boxes=boxes, hidden=hidden)
    return replace(sample, pixels=cv2.rotate(sample.pixels, _TURNS[quarters])) if quarters else sample


def place(
    canvas: NDArray[np.uint8], area: Area, sample: Sample, scale: float, kept_share: float, rng: np.random.Generator
) -> Sample:
    """Draw the picture into an area of `canvas`, at a random place; returns the canvas with the objects that came along.

    At `scale` 1 the picture fits the area; larger, a random part of it is taken. Objects with less than `kept_share` of their area
    left become hidden ones.
    """
    height, width = sample.pixels.shape[:2]
    factor = scale * min((area[2] - area[0]) / width, (area[3] - area[1]) / height)
    x, columns, left, across = _fit(width, area[0], area[2], factor, rng)
    y, rows, top, down = _fit(height, area[1], area[3], factor, rng)
    part = sample.pixels[y : y + rows, x : x + columns]
    method = cv2.INTER_AREA if factor < 1 and rng.random() < 0.5 else cv2.INTER_LINEAR
    canvas[top : top + down, left : left + across] = cv2.resize(part, (across, down), interpolation=method)
    ratio = np.array([across / columns, down / rows] * 2, np.float32)
    from_, to = np.array([x, y] * 2, np.float32), np.array([left, top] * 2, np.float32)
    boxes, hidden = ((boxes - from_) * ratio + to for boxes in (sample.boxes, sample.hidden))
    return _clip(Sample(canvas, boxes, sample.class_ids, hidden), (left, top, left + across, top + down), kept_share)


def join(samples: Sequence[Sample]) -> Sample:
    """The objects of several parts of one canvas, together."""
    return Sample(
        samples[0].pixels,
        np.concatenate([sample.boxes for sample in samples]),
        np.concatenate([sample.class_ids for sample in samples]),
        np.concatenate([sample.hidden for sample in samples]),
    )


def hide(sample: Sample, rng: np.random.Generator) -> Sample:
    """Paint over what must not be seen, with its own mean colour or the padding's, but not over objects that are kept."""
    if not len(sample.hidden):
        return sample
    pixels = sample.pixels
    kept = [(rows, pixels[rows].copy()) for rows in _slices(sample.boxes, pixels)]
    for rows in _slices(sample.hidden, pixels):
        if pixels[rows].size:
            pixels[rows] = pixels[rows].mean(axis=(0, 1)) if rng.random() < 0.5 else PAD
    for rows, before in kept:
        pixels[rows] = before
    return replace(sample, hidden=sample.hidden[:0])


def _fit(length: int, start: int, end: int, factor: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Along one side: the first pixel and how many of the picture's `length`; where on the canvas, and how many pixels there."""
    taken = max(1, min(length, int((end - start) / factor)))
    drawn = max(1, min(end - start, round(taken * factor)))
    return int(rng.integers(length - taken + 1)), taken, start + int(rng.integers(end - start - drawn + 1)), drawn


def _clip(sample: Sample, area: Area, kept_share: float) -> Sample:
    low, high = np.array([*area[:2]] * 2, np.float32), np.array([*area[2:]] * 2, np.float32)
    boxes, hidden = sample.boxes.clip(low, high), sample.hidden.clip(low, high)
    sides, before = boxes[:, 2:] - boxes[:, :2], sample.boxes[:, 2:] - sample.boxes[:, :2]
    kept = (sides.min(axis=1) >= _LEAST_SIDE) & (sides.prod(axis=1) >= kept_share * before.prod(axis=1))
    hidden = np.concatenate((hidden, boxes[~kept]))
    seen = (hidden[:, 2:] > hidden[:, :2]).all(axis=1)
    return Sample(sample.pixels, boxes[kept], sample.class_ids[kept], hidden[seen])


def _slices(boxes: NDArray[np.float32], pixels: NDArray[np.uint8]) -> list[tuple[slice, slice]]:
    """Rows and columns of the pixels that boxes touch."""
    high = np.array([pixels.shape[1], pixels.shape[0]] * 2)
    whole = np.concatenate((np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])), axis=1).clip(0, high).astype(int)
    return [(slice(top, bottom), slice(left, right)) for left, top, right, bottom in whole.tolist()]
