"""`sightstream sink`: carry results from Kafka to where they are kept."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.settings import Settings

if TYPE_CHECKING:
    import asyncio

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
    from functools import partial

    from infra import logs
    from infra.connections import check_connection
    from infra.runtime import run_process
    from infra.wiring import open_publisher

    settings = settings.overriding({"parquet.directory": directory})
    logs.set_up(settings.log)
    check_connection(settings.connection)
    with open_publisher(settings) as publisher:
        run = partial(_run, settings, open_delivery(settings, publisher), http)
        run_process(run, settings.general.grace_s)


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


async def _run(settings: Settings, delivery: "Delivery", http: bool, stop: "asyncio.Event") -> None:
    from infra.runtime import run_together, threaded
    from infra.server import build, serving
    from infra.telemetry import Health, describe_build

    describe_build(settings.general.git_sha)
    health = Health()
    health.must_be_ready(STAGE, delivery.complaint)
    parts = {STAGE: threaded(delivery.run, STAGE)}
    if not http:
        await run_together(parts, stop)
        return
    async with serving(build(health), settings.http):
        await run_together(parts, stop, health.stopping)
