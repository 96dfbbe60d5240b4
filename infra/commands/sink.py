"""`sightstream sink`: carry results from Kafka to where they are kept."""

import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.settings import Settings

if TYPE_CHECKING:
    from producers.publisher import Publisher
    from streams.deliver import Delivery

STAGE = "parquet"


@click.group("sink")
def command() -> None:
    """Carry results from Kafka to where they are kept."""


@command.command("parquet")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path, file_okay=False), help="The lake; else parquet.directory."
)
@click.option("--http/--no-http", default=False, help="Serve /healthz, /readyz and /metrics at http.host:http.port.")
@click.pass_obj
def parquet(settings: Settings, directory: Path | None, *, http: bool) -> None:
    """Write results to Parquet files, each exactly once. Run as many as the topic has partitions; SIGTERM drains and exits 0."""
    import asyncio

    from infra.wiring import open_publisher

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with open_publisher(settings) as publisher:
        delivery = open_delivery(settings, publisher, directory)
        if http:
            asyncio.run(_run_with_http(settings, delivery, stop))
        else:
            delivery.run(stop)


def open_delivery(settings: Settings, publisher: "Publisher", directory: Path | None = None) -> "Delivery":
    """A delivery into the lake of `settings` (or into `directory`), a member of the group `<kafka.group>.parquet`."""
    from sinks.parquet import ParquetSink
    from streams.deliver import Delivery, DeliveryPolicy
    from streams.membership import MembershipPolicy

    policy = settings.parquet if directory is None else replace(settings.parquet, directory=directory)
    instance = settings.kafka.instance_id
    return Delivery(
        settings.connection,
        publisher,
        ParquetSink(policy),
        DeliveryPolicy(stage=STAGE),
        MembershipPolicy(
            group=f"{settings.kafka.group}.{STAGE}", instance_id=f"{instance}.{STAGE}" if instance else None
        ),
    )


async def _run_with_http(settings: Settings, delivery: "Delivery", stop: threading.Event) -> None:
    import asyncio

    from infra.server import build, serving
    from infra.telemetry import Health

    health = Health()
    health.must_be_ready(STAGE, delivery.complaint)
    async with serving(build(health), settings.http):
        await asyncio.to_thread(delivery.run, stop)
