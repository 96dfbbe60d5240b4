"""What is on the detector, or on its way there: when a device will be free, and how long a batch takes until it may start there."""

import math
import time
from collections.abc import Callable, Hashable

from detectors.curve import Curve

# Of what the slowest preparations took lately, the share that is remembered with each that follows.
_MEMORY = 0.9
# Estimates are off at times, and a device that waits costs more than a batch that could have been larger.
_MARGIN = 1.5


class Underway:
    """The batches that have begun and have not left their device. `concurrency`: calls at once. Thread-safe but for `begin`."""

    def __init__(self, concurrency: int, curve: Curve, now: Callable[[], float] = time.monotonic) -> None:
        self._concurrency, self._curve, self._now = concurrency, curve, now
        self._begun: dict[Hashable, float] = {}
        self._ends: dict[Hashable, float] = {}
        self._prepare_s = 0.0

    def begin(self, batch: Hashable) -> None:
        """A batch is being prepared."""
        self._begun[batch] = self._now()

    def start(self, batch: Hashable, images: int) -> None:
        """It is on a device, with so many images."""
        now = self._now()
        self._ends[batch] = now + self._curve.now.ms(images) / 1000

    def prepared(self, batch: Hashable) -> None:
        """It could start, if a device were free."""
        self._prepare_s = max(self._now() - self._begun[batch], _MEMORY * self._prepare_s)

    def leave(self, batch: Hashable) -> None:
        """It has left its device, or never came to one."""
        self._begun.pop(batch, None)
        self._ends.pop(batch, None)

    def spare_s(self) -> float:
        """How long a batch need not begin and would still be prepared when a device is free; 0 or less: it should begin now."""
        if len(self._begun) < self._concurrency:
            return 0.0
        free_at = min(tuple(self._ends.values()), default=-math.inf)
        return free_at - self._now() - _MARGIN * self._prepare_s
