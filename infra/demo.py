"""The main job, end to end on an embedded broker: publish photographs, detect, keep the results in Parquet, and sum up."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from detectors.curve import Paced
from infra.broker.embedded import EmbeddedKafka
from infra.runtime import Run, run_process, run_together, threaded
from infra.services import parquet, working_parts
from infra.settings import Settings
from infra.telemetry import Health
from infra.wiring import open_detector, open_publisher
from producers.publisher import Publisher
from schemas.errors import FatalError
from schemas.records import EPOCH, ImageRef
from streams.awaiting import Outcomes

_AT_ONCE = 2000  # the embedded broker keeps about 5 MB of each partition: no more than this is on its way
_START_S = 60.0
_PATIENCE_S = 120.0
_ROWS_S = 30.0

Watch = Callable[[int], object]
"""Told how many more images are done with."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the images. `seconds`: from the first one's publication to the last one's outcome.

    `extra`: results of those that were published afterwards, which count in `rows` alone.
    """

    images: int
    results: int
    extra: int
    rows: int
    seconds: float
    detections: Mapping[str, int]
    failures: Mapping[str, int]
    p50_ms: float | None
    p95_ms: float | None
    lake: Path

    @property
    def complete(self) -> bool:
        """Every image has its outcome, and every result is in Parquet."""
        return self.results + sum(self.failures.values()) == self.images and self.rows == self.results + self.extra


def run_demo(
    settings: Settings, refs: Sequence[ImageRef], watch: Watch, extra: Sequence[ImageRef] = ()
) -> Summary | None:
    """Publish `refs` and see them through, then `extra`, which no figure is of; None where a signal ended it first.

    Raises ConfigurationError where there is no model, FatalError where something does not start.
    """
    # The photographs come several times each: what it tells of speed should be of detection, not of remembering.
    detector = open_detector(settings.defaulting({"cache.max_bytes": 0}))
    try:
        with EmbeddedKafka() as kafka:
            kafka.create(topic.name for topic in settings.topics.catalogue())
            return _run(on_embedded(settings, kafka.bootstrap), detector, (refs, extra), watch)
    finally:
        detector.close()


def _run(
    settings: Settings, detector: Paced, refs: tuple[Sequence[ImageRef], Sequence[ImageRef]], watch: Watch
) -> Summary | None:
    summaries: list[Summary] = []
    with open_publisher(settings) as publisher:
        health = Health()
        demo = _Demo(settings, publisher, refs, health, watch)
        parts: dict[str, Run] = {"demo": threaded(lambda ended: summaries.extend(demo.run(ended)), "demo")}
        parts |= working_parts(settings, publisher, detector, health)
        parts["parquet"] = parquet(settings, publisher, health)
        run_process(lambda stop: run_together(parts, stop), settings.general.grace_s)
    return summaries[0] if summaries else None


def on_embedded(settings: Settings, bootstrap: str) -> Settings:
    """The same settings on the embedded broker, which has neither security nor a registry beside it."""
    return settings.overriding(
        {"kafka.bootstrap": bootstrap, "kafka.security": {}, "registry.url": ""}, "embedded broker"
    )


def fresh_lake(settings: Settings, name: str) -> Path:
    """A directory of this run's own: an embedded broker begins at offset 0, which the lake of another run has already."""
    return settings.state_dir.absolute() / name / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"


class _Demo:
    """The part that publishes and waits; blocking, in a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        refs: tuple[Sequence[ImageRef], Sequence[ImageRef]],
        health: Health,
        watch: Watch,
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        self._refs, self._extra = refs
        self._health = health
        self._watch = watch

    def run(self, ended: threading.Event) -> list[Summary]:
        """The summary, or nothing where `ended` was set meanwhile."""
        _await(lambda: not self._health.unready(), _START_S, ended)
        if not ended.is_set() and (missing := self._health.unready()):
            raise FatalError(f"not ready after {_START_S:g} s: {dict(missing)}")
        settings = self._settings
        with Outcomes(settings.connection, self._publisher.codec, settings.topics) as outcomes:
            started = time.monotonic()
            for start in range(0, len(self._refs), _AT_ONCE):
                self._see_through(self._refs[start : start + _AT_ONCE], outcomes, ended)
            seconds = time.monotonic() - started
            tally = outcomes.tally
        extra = self._see_extra_through(ended)
        _await(lambda: count_rows(settings.parquet.directory) >= tally.results + extra, _ROWS_S, ended)
        if ended.is_set():
            return []
        return [
            Summary(
                images=len(self._refs),
                results=tally.results,
                extra=extra,
                rows=count_rows(settings.parquet.directory),
                seconds=seconds,
                detections=tally.detections,
                failures=Counter(tally.failures.values()),
                p50_ms=tally.latency_ms(0.5),
                p95_ms=tally.latency_ms(0.95),
                lake=settings.parquet.directory,
            )
        ]

    def _see_extra_through(self, ended: threading.Event) -> int:
        """How many results there are of them."""
        settings = self._settings
        with Outcomes(settings.connection, self._publisher.codec, settings.topics) as outcomes:
            self._see_through(self._extra, outcomes, ended)
            return outcomes.tally.results

    def _see_through(self, refs: Sequence[ImageRef], outcomes: Outcomes, ended: threading.Event) -> None:
        marks = outcomes.marks()
        receipts: list[Future[Any]] = [
            self._publisher.publish(replace(ref, submitted_at=EPOCH)) for ref in refs
        ]  # "now", that is
        waiting = {ref.id for ref in refs}
        deadline = time.monotonic() + _PATIENCE_S
        while waiting and not ended.is_set() and time.monotonic() < deadline:
            before = len(waiting)
            outcomes.wait(waiting, marks, 1.0, self._watch)  # a second at a time, so that Ctrl-C is heard
            if len(waiting) < before:
                deadline = time.monotonic() + _PATIENCE_S
        for receipt in receipts:
            receipt.result(timeout=_PATIENCE_S)


def count_rows(lake: Path) -> int:
    """Rows of all files that the sink has made visible."""
    if not lake.is_dir():
        return 0
    rows: int = ds.dataset(lake, format="parquet", partitioning="hive").count_rows()
    return rows


def _await(condition: Callable[[], bool], limit_s: float, ended: threading.Event) -> None:
    deadline = time.monotonic() + limit_s
    while not ended.is_set() and not condition() and time.monotonic() < deadline:
        ended.wait(0.05)
