"""Copies of a picture are alike; pictures that merely hash alike are not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.training.fingerprints import Fingerprint
from detectors.training.likeness import group_alike, is_alike

BASE = np.random.default_rng(0).integers(0, 200, (8, 8, 3)).astype(np.float64)


def fingerprint(
    thumbnail: NDArray[np.float64], sha256: str = "", hash64: int = 7, frame: tuple[int, int] = (640, 480)
) -> Fingerprint:
    values = thumbnail.round().astype(np.uint8).tobytes()
    return Fingerprint(sha256 or values.hex(), hash64, frame, values)


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        (fingerprint(BASE, "another file"), True),
        (fingerprint(BASE * 0.75 + 30), True),
        (fingerprint(BASE * 1.25), True),
        (fingerprint(BASE, "smaller", frame=(320, 241)), True),
        (fingerprint(BASE, "stretched", frame=(480, 480)), False),
        (fingerprint(BASE[:, :, ::-1]), False),
        (fingerprint(BASE[::-1]), False),
        (fingerprint(np.full((8, 8, 3), 90.0)), False),
    ],
)
def test_pictures_whose_hashes_are_the_same(other: Fingerprint, alike: bool) -> None:
    assert is_alike(fingerprint(BASE), other) == alike
    assert group_alike([fingerprint(BASE), other], 0) == ([[0, 1]] if alike else [[0], [1]])


def test_flat_pictures_are_alike_only_as_files() -> None:
    flat = np.full((8, 8, 3), 90.0)
    prints = [fingerprint(flat, "a"), fingerprint(flat, "b"), fingerprint(flat, "a")]
    assert group_alike(prints, 6) == [[0, 2], [1]]


def test_hashes_decide_what_is_compared() -> None:
    prints = [fingerprint(BASE, "a", 0b0000), fingerprint(BASE, "b", 0b0111), fingerprint(BASE, "c", 0b1111)]
    assert group_alike(prints, 0) == [[0], [1], [2]]
    assert group_alike(prints, 1) == [[0], [1, 2]]
    assert group_alike(prints, 3) == [[0, 1, 2]]
