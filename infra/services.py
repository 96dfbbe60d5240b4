"""The services that a process may run, each built from settings and put under the same health. Imports every part: not for `--help`."""

import asyncio

from detectors.base import Detector
from detectors.images import ImageLoader
from infra.commands.sink import open_delivery
from infra.runtime import Run, run_together, threaded
from infra.server import build, serving
from infra.settings import Settings
from infra.telemetry import Health, describe_build
from producers.publisher import Publisher
from streams.retries import ForwarderPolicy, RetryForwarder
from streams.worker import Worker, WorkerParts


async def run_worker(settings: Settings, publisher: Publisher, detector: Detector, stop: asyncio.Event) -> None:
    """One worker process: detection, retries, and its health and metrics at `http.port`."""
    health = Health()
    async with serving(build(health), settings.http):
        await run_together(working_parts(settings, publisher, detector, health), stop, health.stopping)


def working_parts(settings: Settings, publisher: Publisher, detector: Detector, health: Health) -> dict[str, Run]:
    """What a worker consists of."""
    return {"worker": detection(settings, publisher, detector, health), "retries": retries(settings, publisher)}


def detection(settings: Settings, publisher: Publisher, detector: Detector, health: Health) -> Run:
    """References in, detections out."""
    describe_build(settings.general.git_sha, detector.model.digest)
    health.must_live("producer", lambda: str(publisher.failure) if publisher.failure else None)
    health.must_be_ready("worker", lambda: "has not started")

    async def run(stop: asyncio.Event) -> None:
        async with ImageLoader(settings.images) as images:
            parts = WorkerParts(
                connection=settings.connection,
                publisher=publisher,
                detector=detector,
                images=images,
                group=settings.kafka.group,
                instance_id=settings.kafka.instance_id,
                worker=settings.worker,
                batching=settings.batching,
            )
            worker = Worker(parts)
            health.must_be_ready("worker", lambda: None if worker.ready else "has not joined its group")
            await worker.run(stop)

    return run


def retries(settings: Settings, publisher: Publisher) -> Run:
    """The forwarder: puts records of the retry topics back on their lanes when they are due."""
    kafka = settings.kafka
    instance = f"{kafka.instance_id}.retry" if kafka.instance_id else None
    policy = ForwarderPolicy(group=f"{kafka.group}.retry", instance_id=instance)
    forwarder = RetryForwarder(settings.connection, publisher, publisher.codec, policy)
    return threaded(forwarder.run, "retries")


def parquet(settings: Settings, publisher: Publisher, health: Health) -> Run:
    """The Parquet sink, in a thread."""
    delivery = open_delivery(settings, publisher)
    health.must_be_ready("parquet", delivery.complaint)
    return threaded(delivery.run, "parquet")
