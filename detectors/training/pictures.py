"""A data set's pictures as pixels, decoded as the engine decodes them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detectors.decode import decode_for
from detectors.training.dataset import Dataset, Picture
from detectors.training.placing import Sample
from schemas.errors import ConfigurationError, RejectedError

_MAX_PIXELS = 200_000_000
_SHOWN = 3


class BrokenPictureError(Exception):
    """A file that holds no picture, or another one than the annotations say."""


def read_sample(picture: Picture, side: int) -> Sample:
    """A picture and its objects, large ones reduced, but not below what a square input of `side` pixels shows.

    Raises BrokenPictureError.
    """
    try:
        decoded = decode_for(picture.file.read_bytes(), _MAX_PIXELS, (side, side))
    except OSError as error:
        raise BrokenPictureError(f"{picture.file}: {error.strerror}") from error
    except RejectedError as error:
        raise BrokenPictureError(f"{picture.file}: {error}") from error
    if decoded.frame != (picture.width, picture.height):
        sizes = f"{picture.width}x{picture.height} by its annotation, {decoded.frame[0]}x{decoded.frame[1]} in truth"
        raise BrokenPictureError(f"{picture.file}: {sizes}")
    height, width = decoded.pixels.shape[:2]
    ratio = np.array([width / picture.width, height / picture.height] * 2, np.float32)
    objects = [label for label in picture.labels if not label.crowd]
    boxes, crowds = (
        np.array([label.box for label in labels], np.float32).reshape(-1, 4) * ratio
        for labels in (objects, [label for label in picture.labels if label.crowd])
    )
    return Sample(decoded.pixels, boxes, np.array([label.class_id for label in objects], np.int64), crowds)


def check_files(dataset: Dataset, what: str) -> None:
    """Raise ConfigurationError where there is nothing to learn from, or a file is not there."""
    if not dataset.pictures:
        raise ConfigurationError(f"the {what} has no pictures")
    if not any(not label.crowd for picture in dataset.pictures for label in picture.labels):
        raise ConfigurationError(f"the {what} has no objects in its {len(dataset.pictures)} pictures")
    missing = [picture.file for picture in dataset.pictures if not picture.file.is_file()]
    if missing:
        raise ConfigurationError(f"{len(missing)} pictures of the {what} are missing: {name_some(missing)}")


def name_some(files: Sequence[Path | str]) -> str:
    """The first few names, for a message."""
    return ", ".join(map(str, files[:_SHOWN])) + (" ..." if len(files) > _SHOWN else "")
