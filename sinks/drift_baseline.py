"""Baselines: how one is made of results, and what its record says."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from schemas.drift import DriftBaseline
from schemas.errors import Reason, RejectedError
from schemas.moments import to_us
from sinks.drift_policy import DriftPolicy, check_dimensions
from sinks.drift_profile import Profile, Slice
from sinks.drift_tally import Tally, facts_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Which results a baseline is made of: completed in `start` up to, not including, `end`, by `model` (`name@version`, empty for all).

    Raises ValueError where that is nothing.
    """

    id: str
    start: datetime
    end: datetime
    model: str = ""
    slices: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("a baseline needs an id")
        if self.start >= self.end:
            raise ValueError("a baseline ends after it begins")
        if self.model and not all(self.model.partition("@")[::2]):
            raise ValueError(f"{self.model!r} is not NAME@VERSION")
        check_dimensions(self.slices)


class BaselineMaker:
    """Counts results into a baseline. Memory is bounded by `drift.max_slices`."""

    def __init__(self, reference: Reference, policy: DriftPolicy) -> None:
        self._reference, self._policy = reference, policy
        self._tally = Tally(policy.max_slices)
        self._from, self._to = to_us(reference.start), to_us(reference.end)
        self.images = 0

    @property
    def left_out(self) -> int:
        """Times an image was in a slice for which there was no room."""
        return self._tally.left_out

    def add(self, batch: pa.RecordBatch) -> None:
        """Count those that belong to it. Columns as in `schemas.arrow.DETECTION_RESULT`; others may stand beside them."""
        facts = facts_of(batch, self._reference.model, self._reference.slices)
        chosen = (facts.event_us >= self._from) & (facts.event_us < self._to)
        self.images += int(np.count_nonzero(chosen))
        self._tally.add(facts, chosen)

    def finish(self, at: datetime) -> tuple[DriftBaseline, Mapping[Slice, Profile]]:
        """The record, and the slices that it leaves out since they have fewer than `drift.min_images`."""
        profiles = dict(self._tally.profiles())
        kept = {one: profile for one, profile in profiles.items() if profile.images >= self._policy.min_images}
        reference = self._reference
        record = DriftBaseline(
            id=reference.id,
            model=reference.model,
            window_start=reference.start,
            window_end=reference.end,
            slices=reference.slices,
            images=self.images,
            profiles=write_profiles(kept),
            created_at=at,
        )
        return record, {one: profile for one, profile in profiles.items() if one not in kept}


def write_profiles(profiles: Mapping[Slice, Profile]) -> str:
    """Profiles as they stand in a record and in a checkpoint."""
    rows = [
        {"tenant": one.tenant, "slice": one.name, **profile.to_json()}
        for one, profile in sorted(profiles.items(), key=_by_slice)
    ]
    return json.dumps(rows, separators=(",", ":"))


def read_profiles(text: str) -> dict[Slice, Profile]:
    """What `write_profiles` wrote. Raises RejectedError for anything else."""
    try:
        return {Slice(row["tenant"], row["slice"]): Profile.from_json(row) for row in json.loads(text)}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise RejectedError(Reason.RECORD_INVALID, f"not the profiles of a baseline: {error!r}"[:300]) from error


def labels_of(profiles: Iterable[Profile]) -> list[str]:
    """The labels that occur."""
    return sorted({label for profile in profiles for label in profile.classes})


def _by_slice(item: tuple[Slice, Profile]) -> Slice:
    return item[0]
