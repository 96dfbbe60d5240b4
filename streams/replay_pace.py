"""How fast a replay may go while people wait for other images: as fast as leaves the online lane's p95 what it is without the replay."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from streams import metrics
from streams.replay_policy import ReplayPolicy

_LOOK_EVERY_S = 1.0
_PAUSE_S = 0.1
# What a raise does to the p95 shows in a window of seconds: until then, it is not to have become many times too fast.
_RAISE, _LOWER = 1.03, 0.5
_RAISE_UNWATCHED = 1.2
_LEARN = 0.3  # of what the last second says about the workers' pace
_FASTER = 2.0  # times that pace is the fastest that is tried
_AHEAD = 8  # references that may always wait on the bulk lane, or there would be none for the workers


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of the lanes: records that wait, and the p95 of the online lane (ms) in the window; None: too few images.

    `bulk_done`: records of the bulk lane that are worked off, counted from wherever; 0 while that is not known.
    """

    online_lag: int
    bulk_lag: int
    p95_ms: float | None = None
    bulk_done: int = 0


class Governor:
    """Decides the rate from what is seen, about once a second. Pure: time is given.

    The p95 without the replay is measured while the bulk lane is empty, at first and every `measure_every_s`. The rate is halved where
    the p95 has grown by more than `hurt`, and after that has half a window to show its effect; it rises by 3 % a second where the p95
    has grown by less than half of that, and stays in between. Without online images only the lag of the lane counts, and it rises by a
    fifth. What waits on the bulk lane is bounded by what the workers are seen to get done, or a backlog would hurt long after the rate
    was lowered.
    """

    def __init__(self, policy: ReplayPolicy, most: float | None = None) -> None:
        self._policy, self._most = policy, most
        self._rate = min(policy.first_rate, most or policy.first_rate)
        self._base_ms: float | None = None
        self._measured_at = float("-inf")
        self._clean_since: float | None = float("-inf")  # what is seen first was there before the replay sent anything
        self._wait_until = float("-inf")
        self._last: tuple[float, Sight] | None = None
        self._done_per_s: float | None = None
        self.paused = True

    @property
    def rate(self) -> float:
        """References a second, while not `paused`."""
        return self._rate

    def room(self, sight: Sight) -> int:
        """How many references may go to the bulk lane before it is looked at again."""
        per_s = self._rate if self._done_per_s is None else min(self._rate, self._done_per_s)
        return max(0, max(_AHEAD, round(self._policy.ahead_s * per_s)) - sight.bulk_lag)

    def see(self, sight: Sight | None, now: float) -> None:
        """Decide anew; None: nobody can say how things are."""
        if sight is None:
            self.paused = True
            return
        self._note_clean(sight, now)
        self._note_done(sight, now)
        if self._is_measuring(sight, now):
            self.paused = True
            return
        self.paused = sight.online_lag > self._policy.online_lag
        self._steer(sight, now)

    def _note_clean(self, sight: Sight, now: float) -> None:
        if sight.bulk_lag:
            self._clean_since = None
        elif self._clean_since is None:
            self._clean_since = now

    def _note_done(self, sight: Sight, now: float) -> None:
        """How fast the workers are, while they have something to do."""
        before, self._last = self._last, (now, sight)
        if before is None or not before[1].bulk_lag or not before[1].bulk_done or now <= before[0]:
            return
        per_s = max(0, sight.bulk_done - before[1].bulk_done) / (now - before[0])
        known = self._done_per_s
        self._done_per_s = per_s if known is None else known + _LEARN * (per_s - known)

    def _is_measuring(self, sight: Sight, now: float) -> bool:
        if now - self._measured_at < self._policy.measure_every_s and (self._base_ms or sight.p95_ms is None):
            return False
        if sight.p95_ms is None:  # nobody waits whom the replay could hurt
            self._base_ms, self._measured_at = None, now
            return False
        if self._clean_since is None or now - self._clean_since < self._policy.window_s:
            return True
        self._base_ms, self._measured_at = sight.p95_ms, now
        return False

    def _steer(self, sight: Sight, now: float) -> None:
        grown = 0.0 if self._base_ms is None or sight.p95_ms is None else sight.p95_ms / self._base_ms - 1
        if self.paused or grown > self._policy.hurt:
            if now >= self._wait_until:
                self._rate = max(self._policy.least_rate, self._rate * _LOWER)
                self._wait_until = now + self._policy.window_s / 2
        elif grown <= self._policy.hurt / 2 and now >= self._wait_until and self.room(sight):
            most = self._most or float("inf")
            if self._done_per_s is not None:  # a rate that nobody works off says nothing, and takes long to lower
                most = min(most, max(self._policy.first_rate, _FASTER * self._done_per_s))
            faster = self._rate * (_RAISE_UNWATCHED if sight.p95_ms is None else _RAISE)
            self._rate = max(min(faster, most), min(self._rate, most))


class Yielding:
    """A `Pace` under a governor. `look` sees the lanes; it is called about once a second."""

    def __init__(
        self,
        governor: Governor,
        look: Callable[[], Sight | None],
        stop: threading.Event,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._governor, self._look, self._stop, self._now = governor, look, stop, now
        self._looked_at = float("-inf")
        self._due = now()
        self._room = 0

    def __call__(self) -> None:
        """Return when the next reference may go, or `stop` is set."""
        while not self._stop.is_set():
            now = self._now()
            if now - self._looked_at >= _LOOK_EVERY_S:
                self._see(now)
            if self._governor.paused or self._room <= 0:
                self._stop.wait(_PAUSE_S)
            elif self._due > now:
                self._stop.wait(min(self._due - now, _PAUSE_S))
            else:
                self._due = max(self._due, now - _PAUSE_S) + 1 / self._governor.rate
                self._room -= 1
                return

    def _see(self, now: float) -> None:
        sight = self._look()
        self._looked_at = now
        self._governor.see(sight, now)
        self._room = 0 if sight is None else self._governor.room(sight)
        metrics.REPLAY_RATE.set(0.0 if self._governor.paused else self._governor.rate)
