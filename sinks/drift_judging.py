"""Where a window of a slice differs from its reference. Pure: the same profiles always give the same answer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sinks import drift_psi
from sinks.drift_adwin import Detect, mean
from sinks.drift_policy import DriftPolicy
from sinks.drift_profile import BINS, Profile


@dataclass(frozen=True, slots=True)
class Finding:
    """One statistic by one measure: it differs where `differs`, which needs `value` over `threshold`."""

    statistic: str
    detector: str
    value: float
    threshold: float
    differs: bool


def judge(reference: Profile, window: Profile, policy: DriftPolicy, adwin: Detect | None) -> Iterator[Finding]:
    """Every finding about the window; statistics of boxes only where both have boxes. `adwin`: None leaves it out."""
    pairs = [("empty", *_emptiness(reference, window), reference.images, window.images)]
    if reference.filled and window.filled:
        filled = (reference.filled, window.filled)
        pairs += [(name, reference.boxes[name], window.boxes[name], *filled) for name in BINS]
        yield _by_psi("class_mix", *drift_psi.pooled(*_classes(reference, window)), *filled, policy)
    for name, before, now, images_before, images_now in pairs:
        joined = (before, now) if name == "empty" else drift_psi.grouped(before, now)
        yield _by_psi(name, *joined, images_before, images_now, policy)
        if adwin is not None:
            change = abs(mean(now) - mean(before))
            differs = change > policy.least_change and adwin(before, now, images_before, images_now)
            yield Finding(name, "adwin", change, policy.least_change, differs)


def _by_psi(
    name: str,
    before: NDArray[np.int64],
    now: NDArray[np.int64],
    images_before: int,
    images_now: int,
    policy: DriftPolicy,
) -> Finding:
    value = drift_psi.psi(drift_psi.shares(before), drift_psi.shares(now))
    threshold = max(policy.psi, drift_psi.chance_psi(len(before), images_before, images_now, policy.chance))
    return Finding(name, "psi", value, threshold, value > threshold)


def _emptiness(*profiles: Profile) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first, second = (np.array([profile.filled, profile.empty], np.int64) for profile in profiles)
    return first, second


def _classes(*profiles: Profile) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    labels = sorted({label for profile in profiles for label in profile.classes})
    first, second = (np.array([profile.classes.get(label, 0) for label in labels], np.int64) for profile in profiles)
    return first, second
