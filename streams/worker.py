"""One detection worker: starts the parts in order, runs until told to stop or something breaks, and drains."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from faust.types import TP

from detectors.base import Detector
from detectors.curve import Curve
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.errors import FatalError
from streams import metrics
from streams.app import Member, WorkerPolicy, build, lane_topics
from streams.batching import Batcher
from streams.detect import DetectStep, Images
from streams.failures import FailureRouter
from streams.intake import LaneIntake
from streams.models import Models, OneModel
from streams.progress import ProgressReporter
from streams.runs import RunApp
from streams.sizing import Batching, Capacity

log = logging.getLogger(__name__)

_LAG_S = 1.0
# How late readers may learn that an image is being processed.
_PROGRESS_S = 0.2


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class WorkerParts:
    """What a worker is made of. They are opened and closed by the caller.

    `group`: the consumer group. `instance_id`: a stable name for this worker's slot (static membership): after a crash its successor starts
    at once instead of after the session timeout; two live workers must not share one. `curve`: how long the detector's calls take; without
    one, batches are as large as what waits. `models`: where images may go, if not all to `detector`, which batches are made for.
    """

    connection: KafkaConnection
    publisher: Publisher
    detector: Detector
    images: Images
    group: str = "sightstream"
    instance_id: str | None = None
    worker: WorkerPolicy = field(default_factory=WorkerPolicy)
    batching: Batching = field(default_factory=Batching)
    curve: Curve | None = None
    models: Models | None = None


class Worker:
    """Reads the lanes, detects, publishes, commits. One per process in production; several may share an event loop in tests."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts = parts
        self._crash: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self.intake = LaneIntake(lane_topics(parts.publisher.topics), parts.worker.drain_s)
        router = FailureRouter(parts.publisher, parts.group, _now_ms)
        step = DetectStep(
            parts.models or OneModel(parts.detector),
            parts.images,
            parts.publisher,
            router,
            self.intake.settled,
            self._fail_threadsafe,
        )
        self._progress = ProgressReporter(parts.publisher, parts.group, lambda: datetime.now(UTC))
        self._batcher = Batcher(step, parts.batching, Capacity.of(parts.detector, parts.curve), self._fail)
        self.intake.batcher = self._batcher
        member = Member(parts.group, parts.instance_id)
        parts.publisher.on_failure = self._fail_threadsafe
        self._app = build(parts.connection, parts.publisher.topics, member, parts.worker, self.intake)

    @property
    def ready(self) -> bool:
        """Whether it has joined its group and reads."""
        consumer = self._app._consumer  # noqa: SLF001 - the property would make one
        joined = self._app.consumer_generation_id > 0
        return consumer is not None and joined and bool(consumer.flow_active) and not self._app.rebalancing

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain: batches that began are finished and committed, the rest is left to the next worker.

        Raises what broke, without committing anything unsafe: the process must end then, and be started again.
        """
        self._spawn(self._batcher.run())
        self._spawn(self._measure())
        self._spawn(self._report_progress())
        self._app.finalize()
        await self._app.start()
        crashed = asyncio.create_task(self._app._crashed.wait())  # noqa: SLF001 - mode has no public awaitable for it
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({crashed, stopping, self._crash}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (crashed, stopping):
                task.cancel()
            await self._stop()
        if self._crash.done():
            raise self._crash.result()
        if self._app.crashed:
            raise FatalError(f"the stream processor crashed: {self._app.crash_reason!r}")

    async def _stop(self) -> None:
        if not self._crash.done() and self._app._consumer is not None:  # noqa: SLF001
            self._app.consumer.stop_flow()
            await self.intake.settle()
            await self._app.consumer.commit_safe()
        await self._app.stop()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._batcher.close()

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(_LAG_S)
            if self.ready:
                _measure_lag(self._app, self.intake)

    async def _report_progress(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            if self.ready:
                # In a thread: while the publisher's buffer is full it waits.
                await asyncio.to_thread(self._progress.report, _taken(self._app, self.intake))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """A task whose failure ends the worker: asyncio would be silent about it."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        log.critical("the worker stops without committing", exc_info=error)
        if not self._crash.done():
            self._crash.set_result(error)

    def _fail_threadsafe(self, error: BaseException) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: the process ends anyway
            self._loop.call_soon_threadsafe(self._fail, error)


def _measure_lag(app: RunApp, intake: LaneIntake) -> None:
    metrics.OLDEST.set(intake.oldest_s)
    for tp in app.consumer.assignment():
        end = app.consumer.highwater(tp)
        at = intake.safe.get(tp) or app.consumer._committed_offset[tp] or 0  # noqa: SLF001
        if end is not None:
            metrics.LAG.labels(tp.topic, str(tp.partition)).set(max(0, end - at))


def _taken(app: RunApp, intake: LaneIntake) -> dict[TP, int]:
    """Where nothing came yet since the partition is this worker's, all before the committed offset was taken once."""
    committed = {tp: app.consumer._committed_offset[tp] for tp in app.consumer.assignment()}  # noqa: SLF001
    return {tp: offset for tp, offset in committed.items() if offset} | dict(intake.taken)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
