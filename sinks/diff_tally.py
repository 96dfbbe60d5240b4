"""Counts what changed over images, overall and by class, and how sure the shares are."""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sinks.diff_core import DISAGREEMENTS, Change
from sinks.diff_pairs import ImagePair

_RESAMPLES = 1000
_AT_ONCE = 100
_OUTSIDE = 0.05  # intervals are of 95 %

_Pattern = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """A share of the objects, and between which values it lies with a confidence of 95 %. All in 0..1."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of `objects` objects: how many of each change, and their shares; `disagreement`: the share not agreed on."""

    objects: int
    counts: Mapping[Change, int]
    shares: Mapping[Change, Interval]
    disagreement: Interval


class Tally:
    """Takes pairs; gives a summary of all of them and of each class.

    An object's class is its label on the first side, an added one's on the second. Intervals: images are drawn again with replacement, a
    thousand times (percentile bootstrap, seeded: the same counts give the same intervals). Objects of one image go together, as they
    depend on each other. Where no image, or each, shows a change, the far end is that of Clopper and Pearson's interval over images.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self.images = 0
        self.confusions: Counter[tuple[str, str]] = Counter()
        self._total: Counter[_Pattern] = Counter()
        self._classes: dict[str, Counter[_Pattern]] = {}

    def add(self, pair: ImagePair) -> None:
        """Count an image."""
        self.images += 1
        counts: dict[str, Counter[Change]] = {}
        for row, change in enumerate(pair.diff.changes):
            one, two = pair.labels(row)
            label = one if one is not None else str(two)
            counts.setdefault(label, Counter())[change] += 1
            if change is Change.RECLASSIFIED:
                self.confusions[label, str(two)] += 1
        self._total[_pattern(sum(counts.values(), Counter()))] += 1
        for label, of_class in counts.items():
            self._classes.setdefault(label, Counter())[_pattern(of_class)] += 1

    def total(self) -> Summary:
        """Of all classes."""
        return _summarise(self._total, self.images, [self._seed])

    def classes(self) -> dict[str, Summary]:
        """By class, by name. A class's intervals do not depend on which others there are."""
        return {
            label: _summarise(patterns, self.images, [self._seed, zlib.crc32(label.encode())])
            for label, patterns in sorted(self._classes.items())
        }


def _pattern(counts: Mapping[Change, int]) -> _Pattern:
    return tuple(counts.get(change, 0) for change in Change)


def _summarise(patterns: Mapping[_Pattern, int], images: int, seed: Sequence[int]) -> Summary:
    # Images that show the same counts are the same to the bootstrap: how often each kind is drawn is enough.
    kinds = dict(patterns)
    unseen = images - sum(kinds.values())
    if unseen:
        kinds[(0,) * len(Change)] = kinds.get((0,) * len(Change), 0) + unseen
    ordered = sorted(kinds)
    table = np.array(ordered, np.int64).reshape(-1, len(Change))
    often = np.array([kinds[kind] for kind in ordered], np.int64)
    sums = often @ table
    drawn = _draw(table, often, seed)
    showing = int(often[table.sum(axis=1) > 0].sum())
    columns = {change: [at] for at, change in enumerate(Change)}
    shares = {change: _interval(sums, drawn, at, showing) for change, at in columns.items()}
    disagreed = [at for at, change in enumerate(Change) if change in DISAGREEMENTS]
    counts = {change: int(sums[at]) for at, change in enumerate(Change)}
    return Summary(int(sums.sum()), counts, shares, _interval(sums, drawn, disagreed, showing))


def _draw(table: NDArray[np.int64], often: NDArray[np.int64], seed: Sequence[int]) -> NDArray[np.int64]:
    """(resamples, changes): sums of as many images, drawn with replacement."""
    images = int(often.sum())
    if not images:
        return np.zeros((_RESAMPLES, len(Change)), np.int64)
    rng = np.random.default_rng(list(seed))
    parts = [rng.multinomial(images, often / images, _AT_ONCE) @ table for _ in range(_RESAMPLES // _AT_ONCE)]
    return np.concatenate(parts)


def _interval(sums: NDArray[np.int64], drawn: NDArray[np.int64], columns: list[int], showing: int) -> Interval:
    objects = int(sums.sum())
    if not objects:
        return Interval(0.0, 0.0, 1.0)
    part = int(sums[columns].sum())
    of = drawn.sum(axis=1)
    shares = drawn[of > 0][:, columns].sum(axis=1) / of[of > 0]
    low, high = np.quantile(shares, [_OUTSIDE / 2, 1 - _OUTSIDE / 2]).tolist()
    if part in {0, objects}:
        reach = 1 - (_OUTSIDE / 2) ** (1 / showing)
        low, high = (0.0, reach) if part == 0 else (1 - reach, 1.0)
    return Interval(part / objects, low, high)
