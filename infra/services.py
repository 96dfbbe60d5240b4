"""The services that a process may run, each built from settings and put under the same health. Imports every part: not for `--help`."""

import asyncio

from detectors.curve import Paced
from detectors.images import ImageLoader
from infra.gateway import open_gateway
from infra.hosting import engine
from infra.runtime import Run, first_of, run_together, threaded
from infra.server import AddRoutes, build, run_alone, serving
from infra.settings import Settings
from infra.telemetry import Health, describe_build
from infra.uploads import readable_uploads
from infra.wiring import open_codec
from producers.publisher import Publisher
from sinks.api import add_routes
from sinks.notifier import Hub
from sinks.parquet import ParquetSink
from streams.deliver import Delivery, DeliveryPolicy
from streams.membership import MembershipPolicy
from streams.retries import ForwarderPolicy, RetryForwarder
from streams.tail import Tail
from streams.worker import Worker, WorkerParts

PARQUET = "parquet"


async def run_worker(settings: Settings, publisher: Publisher, detector: Paced | None, stop: asyncio.Event) -> None:
    """One worker process: detection, retries, and its health and metrics at `http.port`."""
    health = Health()
    async with serving(build(health), settings.http):
        await run_together(working_parts(settings, publisher, detector, health), stop, health.stopping)


async def run_parquet(settings: Settings, publisher: Publisher, http: bool, stop: asyncio.Event) -> None:
    """One sink process; with `http`, its health and metrics at `http.port`."""
    await run_alone(settings, lambda health: {PARQUET: parquet(settings, publisher, health)}, stop, http=http)


async def run_gateway(settings: Settings, publisher: Publisher, stop: asyncio.Event) -> None:
    """One gateway process: the whole HTTP API, the page, health and metrics at `http.port`."""
    describe_build(settings.general.git_sha)
    health = Health()
    health.must_live("producer", lambda: str(publisher.failure) if publisher.failure else None)
    async with (
        open_gateway(settings, publisher, health) as gateway,
        serving(build(health, *gateway.routes), settings.http, guarded=True),
    ):
        await run_together(gateway.parts, stop, health.stopping)


async def run_notifier(settings: Settings, stop: asyncio.Event) -> None:
    """One notifier process: subscribers, health and metrics at `http.port`."""
    describe_build(settings.general.git_sha)
    health = Health()
    part, routes = notifier(settings, health)
    async with serving(build(health, routes), settings.http):
        await run_together({"notifier": part}, stop, health.stopping)


def working_parts(settings: Settings, publisher: Publisher, detector: Paced | None, health: Health) -> dict[str, Run]:
    """What a worker consists of."""
    return {"worker": detection(settings, publisher, detector, health), "retries": retries(settings, publisher)}


def detection(settings: Settings, publisher: Publisher, detector: Paced | None, health: Health) -> Run:
    """References in, detections out; without `detector`, by the models of the registry."""
    health.must_live("producer", lambda: str(publisher.failure) if publisher.failure else None)
    health.must_be_ready("worker", lambda: "has not started")

    async def run(stop: asyncio.Event) -> None:
        async with (
            engine(settings, publisher, detector, health) as using,
            ImageLoader(readable_uploads(settings), using.canvas) as images,
        ):
            describe_build(settings.general.git_sha, using.detector.model.digest)
            parts = WorkerParts(
                connection=settings.connection,
                publisher=publisher,
                detector=using.detector,
                images=images,
                group=settings.kafka.group,
                instance_id=settings.kafka.instance_id,
                worker=settings.worker,
                batching=settings.batching,
                curve=using.curve,
                models=using.models,
            )
            worker = Worker(parts)
            health.must_be_ready("worker", lambda: None if worker.ready else "has not joined its group")
            await run_together({"worker": worker.run, **using.parts}, stop)

    return run


def retries(settings: Settings, publisher: Publisher) -> Run:
    """The forwarder: puts records of the retry topics back on their lanes when they are due."""
    group, instance = _member(settings, "retry")
    forwarder = RetryForwarder(
        settings.connection, publisher, publisher.codec, ForwarderPolicy(group=group, instance_id=instance)
    )
    return threaded(forwarder.run, "retries")


def parquet(settings: Settings, publisher: Publisher, health: Health, catch_up_s: float = 0.0) -> Run:
    """The Parquet sink, in a thread: results into the lake of `settings`. `catch_up_s`: see `DeliveryPolicy`."""
    group, instance = _member(settings, PARQUET)
    delivery = Delivery(
        settings.connection,
        publisher,
        ParquetSink(settings.parquet),
        DeliveryPolicy(stage=PARQUET, catch_up_s=catch_up_s),
        MembershipPolicy(group=group, instance_id=instance),
    )
    health.must_be_ready(PARQUET, delivery.complaint)
    return threaded(delivery.run, PARQUET)


def notifier(settings: Settings, health: Health) -> tuple[Run, AddRoutes]:
    """The part that follows the log, and the routes of its hub. Ready once the recent past has been read."""
    hub = Hub(settings.notifier)
    group, _ = _member(settings, "notifier")
    tail = Tail(settings.connection, open_codec(settings), settings.topics, settings.tail, group)
    health.must_be_ready("notifier", lambda: None if hub.ready else "is reading its history")

    async def run(stop: asyncio.Event) -> None:
        work = asyncio.ensure_future(tail.run(hub))
        await first_of(work, stop)
        tail.stop()
        await work

    return run, lambda app: add_routes(app, hub)


def _member(settings: Settings, part: str) -> tuple[str, str | None]:
    """Consumer group and instance id of a part that has a group of its own beside the workers'."""
    kafka = settings.kafka
    return f"{kafka.group}.{part}", f"{kafka.instance_id}.{part}" if kafka.instance_id else None
