"""What `sightstream drift` runs: the watcher as the parts of a process, or once; baselines out of topics or files; what was said."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from infra.connections import check_connection
from infra.runtime import Run, threaded
from infra.server import run_alone
from infra.settings import Settings
from infra.telemetry import Health
from infra.wiring import open_codec
from schemas.drift import DriftAlert, DriftBaseline
from schemas.errors import ConfigurationError
from sinks.diff_lake import read_lake
from sinks.drift_baseline import BaselineMaker, Reference
from sinks.drift_monitor import Aspect
from sinks.drift_profile import Profile, Slice
from streams.drift_alerts import DriftAlerts
from streams.drift_memory import DriftMemory
from streams.drift_reading import ResultReader
from streams.drift_reference import NEEDED, count_results
from streams.drift_watch import DriftWatch, WatchParts
from streams.fold import Follower, Latest, read_to_end
from streams.past_results import PastResults, Unread

_PART = "drift"
_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Made:
    """A baseline, the slices that it leaves out for want of images, and how often an image was in one for which there was no room."""

    baseline: DriftBaseline
    too_few: Mapping[Slice, Profile]
    no_room: int


async def run_drift(settings: Settings, since: datetime | None, http: bool, stop: asyncio.Event) -> None:
    """One watching process; with `http`, its health and metrics at `http.port`."""
    await run_alone(settings, lambda health: drift_parts(settings, health, since), stop, http=http)


def drift_parts(settings: Settings, health: Health, since: datetime | None = None) -> dict[str, Run]:
    """The watcher of `drift.baseline`, and the follower of baselines that it needs. `since`: see `DriftWatch`."""
    baselines, follower = _follow_baselines(settings)
    health.must_be_ready(_PART, lambda: "has not started")

    def run(stop: threading.Event) -> None:
        while follower.complaint() is not None and not stop.is_set():
            stop.wait(_LOOK_AGAIN_S)
        with _opened(settings, baselines, since) as watch:
            health.must_be_ready(_PART, watch.complaint)
            watch.run(stop)

    return {_PART: threaded(run, _PART), f"{_PART}-baselines": threaded(follower.run, f"{_PART}-baselines")}


def watch_once(settings: Settings, since: datetime | None) -> Mapping[Aspect, float]:
    """Read what the results' topic holds now, write the alerts, and note where that was; what differs in the end.

    Raises ConfigurationError where there is no such baseline.
    """
    baselines, follower = _follow_baselines(settings)
    read_to_end(follower)
    find_baseline(baselines.all(), settings.drift.baseline)
    with _opened(settings, baselines, since) as watch:
        watch.run(threading.Event(), to_the_end=True)
        return watch.differing


def read_baselines(settings: Settings) -> dict[str, DriftBaseline]:
    """All there are, by id. Raises ConfigurationError."""
    check_connection(settings.connection)
    baselines, follower = _follow_baselines(settings)
    read_to_end(follower)
    return baselines.all()


def find_baseline(baselines: Mapping[str, DriftBaseline], name: str) -> DriftBaseline:
    """One of them. Raises ConfigurationError where it is not there."""
    if name not in baselines:
        known = f"there are {', '.join(baselines)}" if baselines else "make one with `sightstream drift baseline`"
        raise ConfigurationError(f"there is no baseline {name}: {known}")
    return baselines[name]


def read_alerts(settings: Settings) -> Iterator[DriftAlert]:
    """Every alert that the topic holds, oldest first. Raises ConfigurationError, BusyError."""
    return _alerts(settings).read()


def make_baseline(
    settings: Settings,
    reference: Reference,
    lake: Path | None,
    unread: Callable[[Unread], object],
    told: Callable[[int], object],
) -> Made:
    """Count the results of the reference, out of Parquet files or the results' topic. `told`: how many images so far.

    Raises ConfigurationError where too few are there for a single slice.
    """
    maker = BaselineMaker(reference, settings.drift)
    if lake is not None:
        batches = read_lake(lake, NEEDED)
    else:
        past = PastResults(settings.connection, open_codec(settings), _group(settings))
        batches = past.read([settings.topics.detections], reference.start, unread)
    count_results(batches, maker, told)
    baseline, too_few = maker.finish(datetime.now(UTC))
    if baseline.profiles == "[]":
        raise ConfigurationError(
            f"{baseline.images} images are no baseline: no slice has {settings.drift.min_images} (drift.min_images)"
        )
    return Made(baseline, too_few, maker.left_out)


def _follow_baselines(settings: Settings) -> tuple[Latest[DriftBaseline], Follower]:
    baselines = Latest(DriftBaseline)
    folds = {settings.topics.drift_baselines: baselines}
    return baselines, Follower(settings.connection, open_codec(settings), folds, _group(settings))


@contextmanager
def _opened(settings: Settings, baselines: Latest[DriftBaseline], since: datetime | None) -> Iterator[DriftWatch]:
    topic = settings.topics.detections
    memory = DriftMemory(settings.state_dir / _PART, settings.drift.baseline)
    with ResultReader(settings.connection, open_codec(settings), topic, _group(settings)) as reader:
        yield DriftWatch(WatchParts(reader, baselines, _alerts(settings), memory), settings.drift, topic, since)


def _alerts(settings: Settings) -> DriftAlerts:
    return DriftAlerts(settings.connection, open_codec(settings), settings.topics.drift, _group(settings))


def _group(settings: Settings) -> str:
    return f"{settings.kafka.group}.{_PART}"
