"""How replays go about it: a light module, since the settings know it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPolicy:
    """How replays go about it.

    `save_every_s`: how much a process that goes on has to read back. `settle_s`: how long it waits before it does, for what its
    predecessor had on the way to reach the lane.

    With `--yield-to-online`: `hurt` is by how much (0.1 = a tenth) the p95 of the online lane may grow over what it is without the replay;
    `window_s` and `window_images` are the least that such a p95 is taken of, and every `measure_every_s` the replay pauses for a window to
    take it anew. While more than `online_lag` records wait on the online lane it pauses, too. At most `ahead_s` seconds' worth of its
    references wait on the bulk lane. It begins with `first_rate` references a second, and goes no lower than `least_rate`.
    """

    save_every_s: float = 1.0
    settle_s: float = 2.0
    hurt: float = 0.1
    window_s: float = 20.0
    window_images: int = 20
    measure_every_s: float = 600.0
    online_lag: int = 50
    ahead_s: float = 2.0
    first_rate: float = 2.0
    least_rate: float = 1.0
