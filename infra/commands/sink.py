"""`sightstream sink`: carry results from Kafka to where they are kept."""

from pathlib import Path

import click

from infra.settings import Settings


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
    from infra.services import run_parquet
    from infra.wiring import open_publisher

    settings = settings.overriding({"parquet.directory": directory}).checked_fully()
    logs.set_up(settings.log)
    check_connection(settings.connection)
    with open_publisher(settings) as publisher:
        run_process(partial(run_parquet, settings, publisher, http), settings.general.grace_s)


@command.command("store")
@click.option("--database", metavar="URL", help="The database; else store.database_url, else a file in state_dir.")
@click.option("--http/--no-http", default=False, help="Serve /healthz, /readyz and /metrics at http.host:http.port.")
@click.pass_obj
def store(settings: Settings, database: str | None, *, http: bool) -> None:
    """Keep requests, results and batches in a database, for gateways to read. One is enough; more stand by and share the work."""
    from functools import partial

    from infra import logs
    from infra.connections import check_connection
    from infra.runtime import run_process
    from infra.store import run_store

    settings = settings.overriding({"store.database_url": database}).checked_fully()
    logs.set_up(settings.log)
    check_connection(settings.connection)
    run_process(partial(run_store, settings, http), settings.general.grace_s)
