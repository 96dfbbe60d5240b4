"""Runs a detector over what it is to see of a batch, and finds the image at fault where it raises."""

import time
from collections.abc import Sequence

import numpy as np

from detectors.base import Boxes, Detector, Image
from schemas.errors import FatalError
from schemas.records import DetectParameters
from streams.work import Share

_DEFAULTS = DetectParameters()
_BLANK = Image(np.full((64, 64, 3), 127, np.uint8))


def infer_share(share: Share) -> dict[int, Exception]:
    """Detect in all images of a share; where the detector raises, halve them until the image at fault is alone.

    Returns what the images at fault raised, by record; their rows are gone from the share. Raises FatalError where the detector, and not
    the images, is to blame.
    """
    detector, most = share.loaded.detector, share.loaded.detector.max_batch
    began = time.perf_counter()
    boxes, bad = _detect(detector, share.images[:most], share.parameters[:most], 0)
    # A batch is made for what the default model takes; another one may take less at a time.
    for first in range(most, len(share), most):
        part = slice(first, first + most)
        more, worse = _detect(detector, share.images[part], share.parameters[part], first)
        boxes, bad = Boxes.concatenate([boxes, more]), bad | worse
    share.inference_ms = (time.perf_counter() - began) * 1000
    share.boxes = boxes
    if not bad:
        return {}
    if len(bad) == len(share):
        _prove_alive(detector)
    raised = {int(share.index[row]): error for row, error in bad.items()}
    share.drop(bad)
    return raised


def _detect(
    detector: Detector, images: Sequence[Image], parameters: Sequence[DetectParameters], first: int
) -> tuple[Boxes, dict[int, Exception]]:
    """Boxes of the images that could be done, and what the others raised, by row."""
    try:
        boxes = detector.detect(images, parameters)
        boxes.check(len(images), len(detector.model.labels))
    except FatalError:
        raise
    except Exception as error:  # noqa: BLE001 - a backend raises what it likes; the image at fault is found by halving
        if len(images) == 1:
            return Boxes.concatenate([]), {first: error}
    else:
        return boxes, {}
    half = len(images) // 2
    left, bad_left = _detect(detector, images[:half], parameters[:half], first)
    right, bad_right = _detect(detector, images[half:], parameters[half:], first + half)
    return Boxes.concatenate([left, right]), bad_left | bad_right


def _prove_alive(detector: Detector) -> None:
    """Every image failed: find out whether they are to blame, before a sick device dead-letters the whole backlog."""
    try:
        detector.detect([_BLANK], [_DEFAULTS])
    except Exception as error:
        raise FatalError(f"the detector fails on a blank image, too: {error!r}") from error
