"""Not faster than so many a second."""

import time
from collections.abc import Callable


class TokenBucket:
    """Lets `rate` calls a second through, evenly; time lost is caught up with, `burst_s` seconds of it at most.

    Kept as the one moment at which the next token is due, which is the same as counting tokens.
    """

    def __init__(
        self,
        rate: float,
        burst_s: float = 0.1,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not rate > 0:
            raise ValueError("a rate is above 0")
        self._interval_s = 1 / rate
        self._burst_s = burst_s
        self._now = now
        self._sleep = sleep
        self._due = now()

    def take(self) -> None:
        """Return when the next call may go."""
        now = self._now()
        self._due = max(self._due, now - self._burst_s)
        if self._due > now:
            self._sleep(self._due - now)
        self._due += self._interval_s
