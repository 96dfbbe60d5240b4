"""Random draws in the words that the scene generator needs.

All of them come from one numpy Generator, so that a scene is a function of its seed.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Draws = np.random.Generator
Colour = tuple[int, int, int]
"""Blue, green, red, as OpenCV orders them."""

_T = TypeVar("_T")


def chance(draws: Draws, share: float) -> bool:
    """Whether something that happens in `share` of the cases happens now."""
    return bool(draws.random() < share)


def log_uniform(draws: Draws, low: float, high: float) -> float:
    """A number between `low` and `high`, each doubling as likely as any other."""
    return math.exp(draws.uniform(math.log(low), math.log(max(high, low * 1.0001))))


def pick(draws: Draws, weighted: Sequence[tuple[_T, float]]) -> _T:
    """One of the first members, as often as the second ones say; these need not sum to one."""
    return weighted[int(np.searchsorted(_cumulative(tuple(weight for _, weight in weighted)), draws.random()))][0]


def colour(draws: Draws, darkest: float = 0, lightest: float = 255, saturation: float = 0.5) -> Colour:
    """A colour whose strongest channel is between `darkest` and `lightest`; `saturation`: how far the others may fall short of it."""
    value = draws.uniform(darkest, lightest)
    blue, green, red = value * (1 - draws.uniform(0, saturation) * draws.random(3))
    return int(blue), int(green), int(red)


@lru_cache(maxsize=256)
def _cumulative(weights: tuple[float, ...]) -> NDArray[np.float64]:
    sums = np.cumsum(np.array(weights, dtype=np.float64))
    sums /= sums[-1]
    sums[-1] = 1.0
    return sums
