"""What is remembered of the results of a slice: histograms with fixed bins, so that they add up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

OTHER = ""  # the label of all classes beyond those that there is room for

_SCORE_BINS, _SIZE_BINS, _ASPECT_BINS = 50, 40, 32
_OCTAVES = 10.0  # of box sizes, down from the whole frame
_STRETCH = 4.0  # aspects of boxes, in octaves to both sides of a square
BINS: Mapping[str, int] = {"score": _SCORE_BINS, "box_size": _SIZE_BINS, "box_aspect": _ASPECT_BINS}
"""The statistics of boxes that have an order, and how many bins each has."""


@dataclass(frozen=True, slots=True, order=True)
class Slice:
    """Images of one tenant that have something in common: `key=camera-7`, `attributes.site=berlin`; an empty name is all of the tenant."""

    tenant: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.tenant} {self.name}".rstrip()


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Counts over the images of a slice. `empty`: images without a box; `boxes`: by statistic of `BINS`; `classes`: boxes by label."""

    images: int = 0
    empty: int = 0
    boxes: Mapping[str, NDArray[np.int64]] = field(
        default_factory=lambda: {n: np.zeros(b, np.int64) for n, b in BINS.items()}
    )
    classes: Mapping[str, int] = field(default_factory=dict)

    @property
    def filled(self) -> int:
        """Images with a box."""
        return self.images - self.empty

    def __add__(self, other: "Profile") -> "Profile":
        """Of both sets of images."""
        labels = dict.fromkeys([*self.classes, *other.classes])
        return Profile(
            self.images + other.images,
            self.empty + other.empty,
            {name: self.boxes[name] + other.boxes[name] for name in BINS},
            {label: self.classes.get(label, 0) + other.classes.get(label, 0) for label in labels},
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON has it; histograms are lists of (bin, count) without the empty bins."""
        boxes = {
            name: [[int(at), int(counts[at])] for at in np.flatnonzero(counts)] for name, counts in self.boxes.items()
        }
        return {"images": self.images, "empty": self.empty, "boxes": boxes, "classes": dict(self.classes)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """What `to_json` gave. Raises ValueError, KeyError, TypeError or IndexError for anything else."""
        profile = cls(
            int(fields["images"]), int(fields["empty"]), classes={str(k): int(v) for k, v in fields["classes"].items()}
        )
        for name, counts in profile.boxes.items():
            for at, count in fields["boxes"][name]:
                counts[at] = count
        return profile


def score_bins(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each score in 0..1; what is no number is in the first."""
    return _bins(scores, _SCORE_BINS)


def size_bins(area: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each box by its area as a share of the frame's, in steps of a quarter octave of the side."""
    sides = np.sqrt(np.clip(np.nan_to_num(area, posinf=1.0), 2.0 ** (-2 * _OCTAVES), 1.0))
    return _bins(1 + np.log2(sides) / _OCTAVES, _SIZE_BINS)


def aspect_bins(width: NDArray[np.float64], height: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each box by width over height, from 1:16 to 16:1, in steps of a quarter octave."""
    least = 2.0**-20
    octaves = np.log2(np.maximum(np.nan_to_num(width), least) / np.maximum(np.nan_to_num(height), least))
    return _bins((octaves / _STRETCH + 1) / 2, _ASPECT_BINS)


def _bins(values: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    clipped = np.clip(np.nan_to_num(values, posinf=1.0, neginf=0.0), 0.0, 1.0)
    return np.minimum((clipped * bins).astype(np.int64), bins - 1)
