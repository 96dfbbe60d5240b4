"""ADWIN, River's implementation, beside PSI: whether the mean of a histogram moved, by how much, and whether that is more than chance."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError

Detect = Callable[[NDArray[np.int64], NDArray[np.int64], int, int], bool]
"""(reference, window, how many samples each histogram speaks for) -> whether their means differ. See `Adwin`."""

_SAMPLES = 1_000
_SEED = 1


class Adwin:
    """A. Bifet, R. Gavalda, Learning from time-changing data with adaptive windowing, SDM 2007.

    It is shown samples of the reference and then of the window, drawn from their histograms at even quantiles in an order that chance
    chose once, and asked whether it dropped the former: so the answer depends on both histograms alone, and a restart gives it again.
    """

    def __init__(self, chance: float) -> None:
        self._chance = chance

    def __call__(self, reference: NDArray[np.int64], window: NDArray[np.int64], before: int, after: int) -> bool:
        """Whether it tells the window from the reference. `before` and `after` bound the samples: images, not boxes."""
        detector = import_module("river.drift.adwin").ADWIN(delta=self._chance, clock=1)
        for value in samples(reference, before).tolist():
            detector.update(value)
        for value in samples(window, after).tolist():
            detector.update(value)
            if detector.drift_detected:
                return True
        return False


def open_adwin(wanted: str, chance: float) -> Detect | None:
    """`wanted`: `on`, `off`, or `auto`: where river is installed. Raises ConfigurationError for `on` without it."""
    if wanted == "off":
        return None
    if find_spec("river") is not None:
        return Adwin(chance)  # which imports it when it is first needed
    if wanted == "auto":
        return None
    raise ConfigurationError("drift.adwin is on, but river is not installed: pip install 'sightstream[drift]'")


def samples(counts: NDArray[np.int64], most: int) -> NDArray[np.float64]:
    """Values in 0..1 with this histogram: at most so many, and at most 1,000, at its even quantiles, in a fixed random order."""
    number = min(int(counts.sum()), most, _SAMPLES)
    ranks = (np.arange(number) + 0.5) / max(number, 1) * counts.sum()
    values = np.searchsorted(np.cumsum(counts), ranks, side="right") / max(len(counts) - 1, 1)
    return np.random.default_rng(_SEED).permutation(values)


def mean(counts: NDArray[np.int64]) -> float:
    """The mean of a histogram over 0..1; 0 for an empty one."""
    return float(np.average(np.arange(len(counts)), weights=counts) / max(len(counts) - 1, 1)) if counts.sum() else 0.0
