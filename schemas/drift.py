"""Records of drift: what windows are compared with, and where they differed."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from schemas.records import EPOCH


class DriftState(StrEnum):
    """`begins`: this window differs, the one before did not; `lasts`: this one differs, too; `ends`: this one does not any more."""

    BEGINS = "begins"
    LASTS = "lasts"
    ENDS = "ends"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftBaseline:
    """A reference window. Topic `drift-baselines`, compacted by `id`.

    `model` is `name@version`, empty for all; `slices`: what images are told apart by (`tenant`, `key`, `attributes.NAME`); `images`: how
    many it was made of; `profiles`: a JSON list of `sinks.drift_profile.Profile`, one a slice.
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
    """A window of a slice that differs from the reference more than is allowed, or the first that does so no more.

    Topic `drift`, keyed by `tenant`.
    `id` is a function of baseline, slice, statistic, detector and window: whoever reads the same log says the same under the same id.
    `slice`: `key=camera-7`, `attributes.site=berlin`, empty for all of the tenant. `statistic`: what differs (`class_mix`, `score`,
    `box_size`, `box_aspect`, `empty`); `detector`: by which measure (`psi`, `adwin`); it differs where `value` is over `threshold`.
    `images`: how many the window has, `reference_images` the baseline.
    """

    id: str
    state: DriftState = DriftState.BEGINS
    baseline_id: str = ""
    tenant: str = ""
    slice: str = ""
    statistic: str = ""
    detector: str = ""
    value: float = 0.0
    threshold: float = 0.0
    images: int = 0
    reference_images: int = 0
    window_start: datetime = EPOCH
    window_end: datetime = EPOCH
    at: datetime = EPOCH
