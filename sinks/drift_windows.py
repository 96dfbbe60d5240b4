"""Windows of event time over results: which are open, when one is closed, and which slices of it have enough images to be judged."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sinks.drift_baseline import labels_of, read_profiles, write_profiles
from sinks.drift_policy import DriftPolicy
from sinks.drift_profile import Profile, Slice
from sinks.drift_tally import Facts, Tally


@dataclass(frozen=True, slots=True, eq=False)
class Closed:
    """A slice that has enough images, over one or several windows; microseconds since the epoch."""

    slice: Slice
    start_us: int
    end_us: int
    profile: Profile


class Windows:
    """Tumbling windows, aligned to the epoch (UTC). Counts those slices alone that have a reference.

    What comes after its window was closed counts nowhere but in `late`. `dropped` counts slices that did not get enough images in
    `max_span_s`.
    """

    def __init__(self, policy: DriftPolicy, references: Mapping[Slice, Profile]) -> None:
        self._policy = policy
        self._slices, self._labels = frozenset(references), labels_of(references.values())
        self._length_us = round(policy.window_s * 1e6)
        self._open: dict[int, Tally] = {}
        self._gathered: dict[Slice, tuple[int, Profile]] = {}
        self._closed_us: int | None = None
        self.late = self.dropped = 0

    @property
    def closed_us(self) -> int | None:
        """Everything before this moment is closed."""
        return self._closed_us

    def add(self, facts: Facts) -> int:
        """Count images into their windows; how many were in time."""
        windows = facts.event_us // self._length_us
        in_time: NDArray[np.bool_] = np.ones(len(windows), bool)
        if self._closed_us is not None:
            in_time = windows >= self._closed_us // self._length_us
        for window in np.unique(windows[in_time]).tolist():
            self._tally(window).add(facts, windows == window)
        taken = int(np.count_nonzero(in_time))
        self.late += len(windows) - taken
        return taken

    def close(self, watermark_us: int) -> list[Closed]:
        """Close every window that ended `lateness_s` or more before `watermark_us`; the slices to judge, in the order of their windows."""
        due = (watermark_us - round(self._policy.lateness_s * 1e6)) // self._length_us
        self._closed_us = max(self._closed_us or due * self._length_us, due * self._length_us)
        closed = [one for window in sorted(self._open) if window < due for one in self._judged(window)]
        self._drop_old()
        return closed

    def state(self) -> dict[str, Any]:
        """All of it as JSON, for `restore`."""
        return {
            "closed_us": self._closed_us,
            "open": {str(window): write_profiles(dict(tally.profiles())) for window, tally in self._open.items()},
            "gathered_from": [[one.tenant, one.name, start] for one, (start, _) in self._gathered.items()],
            "gathered": write_profiles({one: profile for one, (_, profile) in self._gathered.items()}),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave. Raises RejectedError, KeyError, TypeError or ValueError where it cannot have."""
        starts = {Slice(tenant, name): int(start) for tenant, name, start in state["gathered_from"]}
        self._gathered = {one: (starts[one], profile) for one, profile in read_profiles(state["gathered"]).items()}
        self._closed_us = None if state["closed_us"] is None else int(state["closed_us"])
        for window, text in state["open"].items():
            for one, profile in read_profiles(text).items():
                self._tally(int(window)).put(one, profile)

    def _tally(self, window: int) -> Tally:
        if window not in self._open:
            self._open[window] = Tally(len(self._slices), self._slices, self._labels)
        return self._open[window]

    def _judged(self, window: int) -> Iterable[Closed]:
        start_us, end_us = window * self._length_us, (window + 1) * self._length_us
        for one, profile in self._open.pop(window).profiles():
            since_us, gathered = self._gathered.pop(one, (start_us, Profile()))
            if start_us - since_us >= self._span_us:
                self.dropped += 1
                since_us, gathered = start_us, Profile()
            total = gathered + profile
            if total.images >= self._policy.min_images:
                yield Closed(one, since_us, end_us, total)
            else:
                self._gathered[one] = (since_us, total)

    def _drop_old(self) -> None:
        oldest = (self._closed_us or 0) - self._span_us
        old = [one for one, (since_us, _) in self._gathered.items() if since_us <= oldest]
        for one in old:
            del self._gathered[one]
        self.dropped += len(old)

    @property
    def _span_us(self) -> int:
        return round(self._policy.max_span_s * 1e6)
