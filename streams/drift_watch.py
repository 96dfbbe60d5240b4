"""Follows the results and says where they drift: the baseline from its topic, the monitor's memory in a file, alerts on theirs."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from confluent_kafka import KafkaException

from schemas.drift import DriftAlert, DriftBaseline
from schemas.errors import BusyError, ConfigurationError, RejectedError
from sinks.drift_adwin import open_adwin
from sinks.drift_monitor import Aspect, DriftMonitor
from sinks.drift_policy import DriftPolicy
from streams import drift_metrics as metrics
from streams.drift_memory import DriftMemory, Noted
from streams.drift_reading import Stretch
from streams.fold import Latest

log = logging.getLogger(__name__)

_AT_ONCE = 2_000
_POLL_S = 0.2
_PAUSE_S = 1.0


class Results(Protocol):
    """Where results come from: `streams.drift_reading.ResultReader`."""

    positions: dict[int, int]

    def ends(self) -> dict[int, int]:
        """Where each partition ends now."""

    def at(self, moment: datetime) -> dict[int, int]:
        """The first offset of each partition of that moment or later."""

    def begin(self, positions: Mapping[int, int]) -> None:
        """Read from these offsets on; every end is told anew."""

    def hold(self, partitions: frozenset[int]) -> None:
        """Read nothing of these until they are not named any more."""

    def read(self, most: int, timeout_s: float, stop: threading.Event) -> Stretch:
        """What comes within this time."""


class Voice(Protocol):
    """Where alerts go: `streams.drift_alerts.DriftAlerts`."""

    def write(self, alerts: Sequence[DriftAlert]) -> Sequence[DriftAlert]:
        """Write those that nobody has written yet, and return them. Raises BusyError where it may be tried again."""


@dataclass(frozen=True, slots=True)
class WatchParts:
    """What a watcher works with. `baselines` is kept up to date by somebody else (`streams.fold.Follower`)."""

    results: Results
    baselines: Latest[DriftBaseline]
    alerts: Voice
    memory: DriftMemory


class DriftWatch:
    """Reads results, closes windows as event time passes, and writes alerts, each of them once. One is enough.

    A restart goes on where the memory says; without one, at `since`, or at the end. When the baseline is replaced, windows begin anew;
    while there is none it has nothing to do. While brokers or registry are away it waits. Not thread-safe, but for the event that ends
    `run`.
    """

    def __init__(
        self,
        parts: WatchParts,
        policy: DriftPolicy,
        topic: str,
        since: datetime | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts, self._policy, self._topic, self._since, self._clock = parts, policy, topic, since, clock
        self._adwin = open_adwin(policy.adwin, policy.chance)
        self._monitor: DriftMonitor | None = None
        self._shown: frozenset[Aspect] = frozenset()
        self._idle = False
        self._held: str | None = "has not started"
        self._saved_at = clock()

    def complaint(self) -> str | None:
        """What stands in the way, in one line, or None: a readiness probe."""
        return self._held

    @property
    def differing(self) -> Mapping[Aspect, float]:
        """What differs from the baseline, and by how much."""
        return dict(self._monitor.differing) if self._monitor is not None else {}

    def run(self, stop: threading.Event, *, to_the_end: bool = False) -> None:
        """Watch until `stop`, or with `to_the_end` until what the topic holds has been read; then save.

        Raises FatalError where that cannot go on, ConfigurationError where an operator must do something first.
        """
        while not stop.is_set():
            try:
                monitor = self._current()
                if monitor is None:
                    stop.wait(_PAUSE_S)
                    continue
                self._step(monitor, stop)
            except (BusyError, KafkaException) as error:
                log.warning("drift: waits: %s", error)
                self._held = str(error)
                stop.wait(_PAUSE_S)
                continue
            if to_the_end and monitor.clock.caught_up:
                break
        if self._monitor is not None:
            self._save(self._monitor)

    def _current(self) -> DriftMonitor | None:
        """The monitor of the baseline as it is now; None while there is none."""
        name = self._policy.baseline
        baseline = self._parts.baselines.get(name)
        if baseline is None:
            if not self._idle:
                log.warning("drift: waits for the baseline %s: make one with `sightstream drift baseline`", name)
            self._idle, self._held, self._monitor = True, None, None
            return None
        if self._monitor is None or self._monitor.baseline != baseline:
            self._monitor = self._take_up(baseline)
            self._idle, self._held = False, None
        return self._monitor

    def _take_up(self, baseline: DriftBaseline) -> DriftMonitor:
        try:
            monitor = DriftMonitor(baseline, self._policy, self._adwin)
        except RejectedError as error:
            raise ConfigurationError(f"the baseline {baseline.id} cannot be used: {error}") from error
        reader, noted = self._parts.results, self._noted()
        if noted is not None and not _restored(monitor, noted):
            log.info("drift: windows begin anew: the baseline or their length is another")
        ends = reader.ends()
        known = reader.positions or (noted.positions if noted else None)
        if known is None:
            known = reader.at(self._since) if self._since else ends
        # Of a partition that nobody knew, and of a topic that was made anew, everything counts.
        starts = {index: known.get(index, 0) for index in ends}
        reader.begin({index: start if start <= ends[index] else 0 for index, start in starts.items()})
        for index in ends:
            monitor.clock.follow(index)
        log.info("drift: compares %s with the baseline %s", self._topic, baseline.id)
        return monitor

    def _noted(self) -> Noted | None:
        """What is in the memory, where it is about this topic and nothing was read since."""
        noted = None if self._parts.results.positions else self._parts.memory.load()
        return noted if noted is not None and noted.topic == self._topic else None

    def _step(self, monitor: DriftMonitor, stop: threading.Event) -> None:
        reader = self._parts.results
        stretch = reader.read(_AT_ONCE, _POLL_S, stop)
        for run in stretch.runs:
            monitor.add(run)
        for partition in stretch.ended:
            monitor.clock.ended(partition)
        reader.hold(monitor.ahead())
        if not self._judge(monitor, stop):
            self._monitor = None  # nothing is noted: a restart comes to the same windows again
            return
        self._measure(monitor)
        self._held = None
        if self._clock() - self._saved_at >= self._policy.checkpoint_s:
            self._save(monitor)
            self._adopt_partitions(monitor)

    def _judge(self, monitor: DriftMonitor, stop: threading.Event) -> bool:
        """Close what is over. Alerts are written before anything is noted, so it insists; False where `stop` came first."""
        alerts = monitor.advance(datetime.now(UTC))
        while alerts:
            if stop.is_set():
                return False
            try:
                written = self._parts.alerts.write(alerts)
            except BusyError as error:
                log.warning("drift: waits: %s", error)
                self._held = str(error)
                stop.wait(_PAUSE_S)
            else:
                for alert in written:
                    metrics.ALERTS.labels(alert.statistic, alert.detector, alert.state).inc()
                    log.warning("drift: %s", describe(alert), extra={"alert": alert.id})
                self._save(monitor)
                break
        return True

    def _save(self, monitor: DriftMonitor) -> None:
        """Write down where this is."""
        self._parts.memory.save(Noted(self._topic, self._parts.results.positions, monitor.state()))
        self._saved_at = self._clock()

    def _adopt_partitions(self, monitor: DriftMonitor) -> None:
        """Read partitions that the topic did not have before, from their start."""
        reader = self._parts.results
        try:
            fresh = reader.ends().keys() - reader.positions.keys()
        except ConfigurationError as error:
            log.warning("drift: %s", error)
            return
        if fresh:
            reader.begin({**reader.positions, **dict.fromkeys(fresh, 0)})
            for partition in reader.positions:
                monitor.clock.follow(partition)

    def _measure(self, monitor: DriftMonitor) -> None:
        for outcome in ("counted", "late", "future", "passed_over"):
            metrics.IMAGES.labels(outcome).inc(monitor.counts.pop(outcome, 0))
        for outcome in ("judged", "too_few"):
            metrics.SLICES.labels(outcome).inc(monitor.counts.pop(outcome, 0))
        if monitor.closed_us is not None:
            metrics.CLOSED.set(monitor.closed_us / 1e6)
        for aspect in self._shown - monitor.differing.keys():
            metrics.DIFFERING.remove(*_labels(aspect))
        for aspect, value in monitor.differing.items():
            metrics.DIFFERING.labels(*_labels(aspect)).set(value)
        self._shown = frozenset(monitor.differing)


def describe(alert: DriftAlert) -> str:
    """An alert in one line."""
    what = f"{alert.statistic} by {alert.detector} {alert.value:.3f} (over {alert.threshold:.3f} differs)"
    span = f"{alert.window_start:%Y-%m-%dT%H:%M:%S} - {alert.window_end:%Y-%m-%dT%H:%M:%SZ}"
    return f"{alert.state} {alert.tenant} {alert.slice or 'all'}: {what}, {alert.images} images, {span}"


def _restored(monitor: DriftMonitor, noted: Noted) -> bool:
    try:
        return monitor.restore(noted.monitor)
    except (RejectedError, KeyError, TypeError, ValueError) as error:
        log.warning("drift: what was noted cannot be used: %r", error)
        return False


def _labels(aspect: Aspect) -> tuple[str, str, str, str]:
    return aspect.slice.tenant, aspect.slice.name, aspect.statistic, aspect.detector
