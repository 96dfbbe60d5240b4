"""Throughput and latency as counts: a table of first results per 10 s and class of latency, each class 5 % to either side wide."""

import math
from collections.abc import Mapping

SLOT_US = 10_000_000
KEPT_US = 3_600_000_000
_RATIO = 1.1
_CLASSES = 190  # 1.1 ** 190 ms is 20 hours


def slot_of(moment_us: int) -> int:
    """The stretch of time that a moment belongs to."""
    return moment_us // SLOT_US


def latency_class(latency_ms: float) -> int:
    """The class of a latency: class n is what lies around 1.1 ** n milliseconds."""
    return min(max(round(math.log(max(latency_ms, 1.0), _RATIO)), 0), _CLASSES)


def percentile_ms(counts: Mapping[int, int], share: float) -> float | None:
    """The latency that `share` (0..1) of the images kept to, to 5 %; None without images. `counts`: class -> images."""
    wanted, seen = share * sum(counts.values()), 0
    for latency, images in sorted(counts.items()):
        seen += images
        if seen >= wanted and images:
            return round(_RATIO**latency, 1)
    return None
