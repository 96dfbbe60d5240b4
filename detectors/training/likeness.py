"""Which pictures are the same, or nearly: another size, quality, light or a small cut of one picture."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.training.duplicates import find_pairs, group_pairs
from detectors.training.fingerprints import Fingerprint

# Thumbnails with hardly any contrast say nothing: blank pages are not copies of each other.
_FLAT = 6.0
# What two thumbnails may differ by, mean aside, in parts of their contrast: 0 to 0.05 for another size or JPEG, 0.2 for a cut of 2 % at
# each side, 0.3 for light that is a third stronger; pictures that merely have similar hashes come to 0.5 and more.
_LARGEST_DIFFERENCE = 0.4
_LARGEST_STRETCH = 1.12


def group_alike(prints: Sequence[Fingerprint], near_bits: int) -> list[list[int]]:
    """Pictures, by their places, that are the same or nearly, directly or by way of others; each in one group.

    Those whose hashes differ in at most `near_bits` are compared further, by their colours and the proportions of their frames. Flat
    pictures are only alike where their files are the same. Not promised: of many pictures with one and the same hash each is compared
    with the next, so that one that is unlike the others may stand between two that are alike.
    """
    near = find_pairs([found.hash64 for found in prints], near_bits)
    confirmed = [pair for pair in near.tolist() if is_alike(prints[pair[0]], prints[pair[1]])]
    first: dict[str, int] = {}
    same = [[first.setdefault(found.sha256, place), place] for place, found in enumerate(prints)]
    return group_pairs(len(prints), np.array([*confirmed, *same], np.int64).reshape(-1, 2))


def is_alike(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether two pictures of similar hashes look the same, but for their light."""
    if one.sha256 == other.sha256:
        return True
    (width, height), (other_width, other_height) = one.frame, other.frame
    stretch = width * other_height / (height * other_width)
    if not 1 / _LARGEST_STRETCH < stretch < _LARGEST_STRETCH:
        return False
    left, right = _centred(one), _centred(other)
    contrast = (left.std() + right.std()) / 2
    return min(left.std(), right.std()) >= _FLAT and float((left - right).std()) <= _LARGEST_DIFFERENCE * float(
        contrast
    )


def _centred(found: Fingerprint) -> NDArray[np.float64]:
    values = np.frombuffer(found.thumbnail, np.uint8).astype(np.float64)
    centred: NDArray[np.float64] = values - values.mean()
    return centred
