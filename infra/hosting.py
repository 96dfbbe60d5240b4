"""The models of the registry in a worker: reads what there is, loads what is needed first, and follows what is said."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from detectors.base import Detector
from detectors.curve import Curve, Paced
from detectors.hosting import Host
from infra.runtime import Run, threaded
from infra.settings import Settings
from infra.telemetry import Health
from infra.wiring import open_codec, open_opener
from producers.publisher import Publisher
from streams.fold import Follower, read_to_end
from streams.hosted import DefaultModel, HostedModels, Registry
from streams.model_reports import ModelReports
from streams.models import Models
from streams.routes import RegistryRoutes


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Engine:
    """What a worker detects with: for `streams.worker.WorkerParts`. `canvas`: what images may be reduced to. `parts`: run beside it."""

    detector: Detector
    curve: Curve
    models: Models | None = None
    canvas: tuple[int, int] | None = None
    parts: Mapping[str, Run] = field(default_factory=dict)


@asynccontextmanager
async def engine(
    settings: Settings, publisher: Publisher, detector: Paced | None, health: Health
) -> AsyncIterator[Engine]:
    """The one model, or without `detector` those of the registry. Raises ConfigurationError where nothing runs here."""
    if detector is not None:
        yield Engine(detector=detector, curve=detector.curve, canvas=detector.model.canvas)
        return
    hosting = _Hosting(settings, publisher)
    try:
        yield await asyncio.to_thread(hosting.open, health)
    finally:
        await asyncio.to_thread(hosting.close)


class _Hosting:
    def __init__(self, settings: Settings, publisher: Publisher) -> None:
        policy = settings.models
        self._registry = Registry()
        self._follower = Follower(
            settings.connection,
            open_codec(settings),
            self._registry.folds(settings.topics),
            f"{settings.kafka.group}.models",
        )
        self._opener = open_opener(settings)
        self._reports = ModelReports(publisher, _worker(settings), lambda: datetime.now(UTC))
        self._host = Host(self._registry.versions.get, self._opener, policy, self._reports.tell)
        routes = RegistryRoutes(self._registry.versions, self._registry.rollouts, policy.default)
        self._models = HostedModels(routes, self._registry, self._host, policy.default)
        self._side = policy.largest_input

    def open(self, health: Health) -> Engine:
        """Blocks until the default runs."""
        read_to_end(self._follower)
        default = DefaultModel(self._models, self._models.start())
        self._opener.beside = True
        health.must_be_ready("models", self._follower.complaint)
        return Engine(
            detector=default,
            curve=default,
            models=self._models,
            canvas=(self._side, self._side),
            parts={"models": threaded(self._follower.run, "models")},
        )

    def close(self) -> None:
        self._registry.changed = lambda: None
        self._opener.stop.set()
        self._host.close()
        self._reports.close()


def _worker(settings: Settings) -> str:
    return settings.kafka.instance_id or f"{socket.gethostname()}-{os.getpid()}"
