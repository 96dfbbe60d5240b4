"""The watcher of drift between a scripted log and alerts in memory: what it notes, and what a restart makes of it."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from schemas.drift import DriftAlert, DriftBaseline
from schemas.errors import BusyError, ConfigurationError, Reason
from schemas.records import EPOCH
from sinks.base import ResultRun
from sinks.drift_policy import DriftPolicy
from streams.drift_memory import DriftMemory
from streams.drift_reading import Stretch
from streams.drift_watch import DriftWatch, WatchParts
from streams.fold import Latest
from tests.support.deliveries import eventually
from tests.support.drift import NOON, Camera, Scene, baseline_of, run_of

HOUR = timedelta(hours=1)
POLICY = DriftPolicy(window_s=3600, min_images=100, adwin="off", checkpoint_s=1e9)
CAMERA, DIM = Camera(key="door"), Scene(score=0.5)


def hours(*scenes: Scene) -> list[ResultRun]:
    """One hour a scene, all on partition 0, from noon on."""
    return [
        run_of(CAMERA.results(NOON + at * HOUR, NOON + (at + 1) * HOUR, 120, scene), 0, 120 * at)
        for at, scene in enumerate(scenes)
    ]


class Log:
    """Runs of partitions, as a reader gives them one by one; `then` is called when all were read."""

    def __init__(self, runs: Sequence[ResultRun], then: Callable[[], object] = lambda: None) -> None:
        self.runs, self.then = list(runs), then
        self.positions: dict[int, int] = {}
        self.held: list[frozenset[int]] = []
        self.partitions = {run.partition.index for run in runs} | {0}

    def ends(self) -> dict[int, int]:
        return {
            index: max((run.next for run in self.runs if run.partition.index == index), default=0)
            for index in self.partitions
        }

    def at(self, moment: datetime) -> dict[int, int]:
        assert moment == EPOCH
        return dict.fromkeys(self.partitions, 0)

    def begin(self, positions: Mapping[int, int]) -> None:
        self.positions = dict(positions)

    def hold(self, partitions: frozenset[int]) -> None:
        self.held.append(partitions)

    def read(self, most: int, timeout_s: float, stop: threading.Event) -> Stretch:
        for run in self.runs:
            if run.first >= self.positions[run.partition.index]:
                self.positions[run.partition.index] = run.next
                return Stretch([run])
        self.then()
        return Stretch((), frozenset(self.positions))


class Said:
    """Alerts, each once; refuses as often as it is told."""

    def __init__(self, refuse: Callable[[], bool] = lambda: False) -> None:
        self.alerts: dict[str, DriftAlert] = {}
        self._refuse = refuse

    def write(self, alerts: Sequence[DriftAlert]) -> Sequence[DriftAlert]:
        if self._refuse():
            raise BusyError(Reason.STORAGE_UNAVAILABLE, "away", 0.0)
        fresh = [alert for alert in alerts if alert.id not in self.alerts]
        self.alerts.update((alert.id, alert) for alert in fresh)
        return fresh


@pytest.fixture(scope="module")
def baseline() -> DriftBaseline:
    return baseline_of(CAMERA.results(NOON - HOUR, NOON, 400, seed=5), POLICY, ("key",))


def watch(
    log: Log, said: Said, folder: Path, baseline: DriftBaseline | None, policy: DriftPolicy = POLICY
) -> DriftWatch:
    baselines = Latest(DriftBaseline)
    if baseline is not None:
        baselines.put(baseline.id, baseline)
    parts = WatchParts(log, baselines, said, DriftMemory(folder, "default"))
    return DriftWatch(parts, policy, "detections", since=EPOCH)


def test_a_restart_goes_on_where_the_last_one_ended(baseline: DriftBaseline, tmp_path: Path) -> None:
    said, runs = Said(), hours(Scene(), DIM, DIM, Scene(), Scene())
    watch(Log(runs[:2]), said, tmp_path, baseline).run(threading.Event(), to_the_end=True)
    assert said.alerts == {}  # the dim hour is open, and noted
    log = Log(runs)
    watch(log, said, tmp_path, baseline).run(threading.Event(), to_the_end=True)
    states = [str(alert.state) for alert in said.alerts.values() if alert.statistic == "score"]
    assert states == ["begins", "lasts", "ends"]


def test_what_could_not_be_said_is_said_by_the_next_one(baseline: DriftBaseline, tmp_path: Path) -> None:
    stop = threading.Event()

    def refuse() -> bool:
        stop.set()
        return True

    runs = hours(DIM, Scene())
    unlucky = watch(Log(runs), Said(refuse), tmp_path, baseline, replace(POLICY, checkpoint_s=0.0))
    unlucky.run(stop)
    said = Said()
    watch(Log(runs), said, tmp_path, baseline).run(threading.Event(), to_the_end=True)
    assert {alert.slice for alert in said.alerts.values()} == {"key=door"}


def test_it_insists_until_an_alert_is_written(baseline: DriftBaseline, tmp_path: Path) -> None:
    refusals = iter([True])
    said = Said(lambda: next(refusals, False))
    watch(Log(hours(DIM, Scene())), said, tmp_path, baseline).run(threading.Event(), to_the_end=True)
    assert said.alerts


def test_windows_begin_anew_when_the_baseline_is_replaced(baseline: DriftBaseline, tmp_path: Path) -> None:
    said, runs = Said(), hours(DIM, DIM, Scene())
    watch(Log(runs[:1]), said, tmp_path, baseline).run(threading.Event(), to_the_end=True)
    dim = baseline_of(CAMERA.results(NOON - HOUR, NOON, 400, DIM, seed=6), POLICY, ("key",))
    watch(Log(runs), said, tmp_path, replace(dim, created_at=NOON + HOUR)).run(threading.Event(), to_the_end=True)
    assert said.alerts == {}  # what is dim is usual now; and the first hour is not read again


def test_it_waits_for_a_baseline_and_takes_it_up_when_it_comes(
    baseline: DriftBaseline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="streams.drift_watch")
    stop, log, baselines = threading.Event(), Log([]), Latest(DriftBaseline)
    waiting = DriftWatch(WatchParts(log, baselines, Said(), DriftMemory(tmp_path, "default")), POLICY, "detections")
    thread = threading.Thread(target=waiting.run, args=(stop,))
    thread.start()
    try:
        eventually(lambda: waiting.complaint() is None, "it is idle, which is not wrong", 60)
        eventually(lambda: "sightstream drift baseline" in caplog.text, "it says what it waits for", 60)
        assert log.positions == {}
        baselines.put("default", baseline)
        eventually(lambda: bool(log.positions), "it reads", 60)
    finally:
        stop.set()
        thread.join()


def test_a_baseline_that_makes_no_sense_ends_it(baseline: DriftBaseline, tmp_path: Path) -> None:
    broken = watch(Log([]), Said(), tmp_path, replace(baseline, profiles="{"))
    with pytest.raises(ConfigurationError, match="the baseline default cannot be used"):
        broken.run(threading.Event(), to_the_end=True)


def test_a_partition_that_is_far_ahead_waits_for_the_others(baseline: DriftBaseline, tmp_path: Path) -> None:
    late = run_of(CAMERA.results(NOON + 20 * HOUR, NOON + 21 * HOUR, 50), 0, 0)
    early = run_of(CAMERA.results(NOON, NOON + HOUR, 50), 1, 0)
    log = Log([late, early])
    watch(log, Said(), tmp_path, baseline).run(threading.Event(), to_the_end=True)
    assert log.held == [frozenset({0}), frozenset({0}), frozenset()]


def test_a_partition_that_is_added_is_read_from_its_start(baseline: DriftBaseline, tmp_path: Path) -> None:
    stop = threading.Event()

    def grow() -> None:
        log.partitions.add(7)
        if 7 in log.positions:
            stop.set()

    log = Log(hours(Scene()), grow)
    watch(log, Said(), tmp_path, baseline, replace(POLICY, checkpoint_s=0.0)).run(stop)
    assert log.positions[7] == 0


def test_what_differs_is_a_metric_only_while_it_does(baseline: DriftBaseline, tmp_path: Path) -> None:
    labels = {"tenant": "acme", "slice": "key=door", "statistic": "score", "detector": "psi"}

    def shown() -> float | None:
        return REGISTRY.get_sample_value("sightstream_drift_value", labels)

    log = Log(hours(DIM, Scene()))
    watching = watch(log, Said(), tmp_path, baseline)
    watching.run(threading.Event(), to_the_end=True)
    assert (shown() or 0) > POLICY.psi
    assert {str(aspect.slice) for aspect in watching.differing} == {"acme key=door"}
    log.runs = hours(DIM, Scene(), Scene())
    watching.run(threading.Event(), to_the_end=True)
    assert shown() is None
