"""Records of drift: what windows are compared with, and where they differed."""

from dataclasses import dataclass
from datetime import datetime

from schemas.records import EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftBaseline:
    """A reference window. Topic `drift-baselines`, compacted by `id`.

    `model` is `name@version`, empty for all; `slices`: what images are told apart by (`tenant`, `key`, an attribute's name); `profiles`: a
    JSON object of histograms by slice.
    """

    id: str
    model: str = ""
    window_start: datetime = EPOCH
    window_end: datetime = EPOCH
    slices: tuple[str, ...] = ()
    images: int = 0
    profiles: str = ""
    created_at: datetime = EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftAlert:
    """A window of a slice that differs from the reference more than is allowed. Topic `drift`, keyed by `tenant`.

    `statistic`: what differs (`class_mix`, `score`, `box_size`, ...); `detector`: by which measure (`psi` ...), whose `value` is over
    `threshold`. `images`: how many the window has.
    """

    id: str
    baseline_id: str = ""
    tenant: str = ""
    slice: str = ""
    statistic: str = ""
    detector: str = ""
    value: float = 0.0
    threshold: float = 0.0
    images: int = 0
    window_start: datetime = EPOCH
    window_end: datetime = EPOCH
    at: datetime = EPOCH
