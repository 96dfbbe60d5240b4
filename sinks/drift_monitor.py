"""What a watcher of drift thinks: results in, alerts out, and all of its memory as JSON. Knows no Kafka and no clock of its own."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from schemas.drift import DriftAlert, DriftBaseline, DriftState
from schemas.moments import from_us
from sinks.base import ResultRun
from sinks.drift_adwin import Detect
from sinks.drift_baseline import read_profiles
from sinks.drift_clock import Clock
from sinks.drift_judging import Finding, judge
from sinks.drift_policy import DriftPolicy
from sinks.drift_profile import Slice
from sinks.drift_tally import facts_of
from sinks.drift_windows import Closed, Windows

_OPEN_WINDOWS = 4  # that a partition may be ahead of the others


@dataclass(frozen=True, slots=True, order=True)
class Aspect:
    """What may differ: a statistic of a slice by a detector."""

    slice: Slice
    statistic: str
    detector: str


class DriftMonitor:
    """Compares the windows of a result topic with one baseline.

    Raises RejectedError for a baseline whose record makes no sense. `counts`: images by what became of them (`counted`, `passed_over`,
    `late`, `future`) and slices of windows (`judged`, `too_few`) since somebody last took them. `differing`: what differs now, and by
    how much.
    """

    def __init__(self, baseline: DriftBaseline, policy: DriftPolicy, adwin: Detect | None) -> None:
        self.baseline = baseline
        self.clock = Clock()
        self.counts: Counter[str] = Counter()
        self.differing: dict[Aspect, float] = {}
        self._judged_us: dict[Aspect, int] = {}
        self._policy, self._adwin = policy, adwin
        self._references = read_profiles(baseline.profiles)
        self._windows = Windows(policy, self._references)

    @property
    def closed_us(self) -> int | None:
        """Everything before this moment (microseconds since the epoch) is closed; None before anything is."""
        return self._windows.closed_us

    def ahead(self) -> frozenset[int]:
        """Partitions that are not to be read on until the others are further."""
        return self.clock.ahead(round((_OPEN_WINDOWS * self._policy.window_s + self._policy.lateness_s) * 1e6))

    def add(self, run: ResultRun) -> None:
        """Count results. One that was completed later than Kafka got it comes from a wrong clock, and counts nowhere."""
        batch, stamps_us = run.batch, run.timestamps_ms * 1_000
        event_us = batch.column("completed_at").cast("int64").to_numpy(zero_copy_only=False)
        believable = (stamps_us < 0) | (event_us <= stamps_us + round(self._policy.lateness_s * 1e6))
        if not believable.all():
            self.counts["future"] += int(np.count_nonzero(~believable))
            batch = batch.filter(believable)
        facts = facts_of(batch, self.baseline.model, self.baseline.slices)
        if batch.num_rows:
            self.clock.saw(run.partition.index, int(event_us[believable].max()))
        late = self._windows.late
        self.counts["counted"] += self._windows.add(facts)
        self.counts["late"] += self._windows.late - late
        self.counts["passed_over"] += batch.num_rows - len(facts.event_us)

    def advance(self, at: datetime) -> list[DriftAlert]:
        """Close the windows that are over and judge them; `at`: when that is."""
        watermark_us = self.clock.watermark_us
        if watermark_us is None:
            return []
        dropped = self._windows.dropped
        alerts = [alert for closed in self._windows.close(watermark_us) for alert in self._alerts(closed, at)]
        self.counts["too_few"] += self._windows.dropped - dropped
        self._forget_old()
        return alerts

    def state(self) -> dict[str, Any]:
        """All of it as JSON, for `restore`; the counts not."""
        return {
            "baseline": _identity(self.baseline),
            "window_s": self._policy.window_s,
            "clock": self.clock.state(),
            "windows": self._windows.state(),
            "differing": [
                [
                    aspect.slice.tenant,
                    aspect.slice.name,
                    aspect.statistic,
                    aspect.detector,
                    value,
                    self._judged_us[aspect],
                ]
                for aspect, value in self.differing.items()
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Go on from what `state` gave; False where that was about another baseline or length of windows, and is of no use.

        Raises RejectedError, KeyError, TypeError or ValueError where `state` cannot have given it.
        """
        if state["baseline"] != _identity(self.baseline) or state["window_s"] != self._policy.window_s:
            return False
        self.clock.restore(state["clock"])
        self._windows.restore(state["windows"])
        for tenant, name, statistic, detector, value, end_us in state["differing"]:
            aspect = Aspect(Slice(tenant, name), statistic, detector)
            self.differing[aspect], self._judged_us[aspect] = float(value), int(end_us)
        return True

    def _alerts(self, closed: Closed, at: datetime) -> Iterator[DriftAlert]:
        reference = self._references[closed.slice]
        self.counts["judged"] += 1
        for finding in judge(reference, closed.profile, self._policy, self._adwin):
            aspect = Aspect(closed.slice, finding.statistic, finding.detector)
            state = self._turn(aspect, finding, closed.end_us)
            if state is not None:
                yield DriftAlert(
                    id=_alert_id(self.baseline, aspect, closed),
                    state=state,
                    baseline_id=self.baseline.id,
                    tenant=aspect.slice.tenant,
                    slice=aspect.slice.name,
                    statistic=finding.statistic,
                    detector=finding.detector,
                    value=finding.value,
                    threshold=finding.threshold,
                    images=closed.profile.images,
                    reference_images=reference.images,
                    window_start=from_us(closed.start_us),
                    window_end=from_us(closed.end_us),
                    at=at,
                )

    def _turn(self, aspect: Aspect, finding: Finding, end_us: int) -> DriftState | None:
        """What is to be said of it, if anything."""
        before = aspect in self.differing
        if finding.differs:
            self.differing[aspect], self._judged_us[aspect] = finding.value, end_us
            return DriftState.LASTS if before else DriftState.BEGINS
        if before:
            del self.differing[aspect], self._judged_us[aspect]
            return DriftState.ENDS
        return None

    def _forget_old(self) -> None:
        """A camera that sends nothing any more differs from nothing."""
        oldest = (self._windows.closed_us or 0) - round(self._policy.max_span_s * 1e6)
        for aspect in [aspect for aspect, end_us in self._judged_us.items() if end_us < oldest]:
            del self.differing[aspect], self._judged_us[aspect]


def _identity(baseline: DriftBaseline) -> list[str]:
    return [baseline.id, baseline.created_at.isoformat()]


def _alert_id(baseline: DriftBaseline, aspect: Aspect, closed: Closed) -> str:
    """The same for whoever reads the same log."""
    one = aspect.slice
    parts = [
        *_identity(baseline),
        one.tenant,
        one.name,
        aspect.statistic,
        aspect.detector,
        closed.start_us,
        closed.end_us,
    ]
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]
