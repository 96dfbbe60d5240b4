"""Pictures that are the same, or nearly: all pairs of hashes within a few bits of each other, without comparing each with each."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_BITS = 64


def find_pairs(hashes: Sequence[int], distance: int) -> NDArray[np.int64]:
    """All pairs (i, j), i < j, of 64-bit hashes that differ in at most `distance` bits, int64 (n, 2), sorted.

    Multi-index hashing (Norouzi, Punjani and Fleet 2012): of `distance + 1` groups of bits, two such hashes share at least one whole, so
    that only those are compared which share a group. Equal hashes are put together first, of which a set may hold thousands; these come
    as a chain, each with the next, rather than as all pairs.
    """
    if not 0 <= distance < _BITS:
        raise ValueError(f"a distance of {distance} bits")
    values, places = np.unique(np.array(hashes, np.uint64), return_inverse=True)
    order = np.argsort(places, kind="stable")
    same = np.flatnonzero(np.diff(places[order]) == 0)
    chains = np.stack([order[same], order[same + 1]], 1)
    first = order[np.searchsorted(places[order], np.arange(len(values)))]
    near = [first[pairs] for pairs in _near(values, distance)]
    pairs = np.sort(np.concatenate([chains, *near]).astype(np.int64).reshape(-1, 2), 1)
    return np.unique(pairs, axis=0)


def group_pairs(count: int, pairs: NDArray[np.int64]) -> list[list[int]]:
    """Which of 0..count-1 belong together, directly or by way of others; each in one group, groups by their first, members in order."""
    parents = list(range(count))

    def root_of(member: int) -> int:
        while parents[member] != member:
            parents[member] = parents[parents[member]]
            member = parents[member]
        return member

    for left, right in pairs.tolist():
        low, high = sorted((root_of(left), root_of(right)))
        parents[high] = low
    groups: dict[int, list[int]] = {}
    for member in range(count):
        groups.setdefault(root_of(member), []).append(member)
    return list(groups.values())


def _near(values: NDArray[np.uint64], distance: int) -> Iterator[NDArray[np.int64]]:
    """Pairs of places in `values`, which differ from each other, within the distance; a pair may come more than once."""
    if not distance:
        return
    for group in range(distance + 1):
        # Every so-manieth bit: neighbours in a perceptual hash say much the same, so that groups of them would be crowded.
        mask = np.uint64(sum(1 << bit for bit in range(group, _BITS, distance + 1)))
        keys = values & mask
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        # Places in the order by key of which the k-th next has the same key, for k = 1, 2 ...: every pair of a bucket once.
        places = np.arange(len(keys) - 1)
        step = 1
        while len(places := places[places + step < len(keys)]):
            places = places[keys[places] == keys[places + step]]
            left, right = order[places], order[places + step]
            close = np.bitwise_count(values[left] ^ values[right]) <= distance
            yield np.stack([left[close], right[close]], 1)
            step += 1
