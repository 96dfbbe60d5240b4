"""`sightstream store`: migrate, look at or rebuild the result store."""

import click

from infra.settings import Settings


@click.group("store")
def command() -> None:
    """Migrate, look at or rebuild the result store, which `sightstream sink store` fills."""


@command.command("migrate")
@click.pass_obj
def migrate(settings: Settings) -> None:
    """Bring the database's schema to the version of this release. `sink store` does so by itself unless store.migrate is false."""
    from contextlib import closing

    from infra.store import open_writer
    from sinks import store_schema

    with closing(open_writer(settings)) as writer:
        changed = store_schema.migrate(writer.engine)
    click.echo(f"schema {store_schema.needed_version()}, {'migrated' if changed else 'nothing to do'}")


@command.command("status")
@click.pass_obj
def status(settings: Settings) -> None:
    """Show where the store is, what it holds, and how far it is behind the log."""
    import asyncio

    from infra.connections import check_connection
    from infra.store_report import report

    check_connection(settings.connection)
    for line in asyncio.run(report(settings)):
        click.echo(line)


@command.command("rebuild")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def rebuild(settings: Settings, *, yes: bool) -> None:
    """Forget what the log tells, and read it again from its start. Ends when the store has all that the log held at the start.

    Deletions and webhook deliveries are kept. What the log does not hold any more is not brought back. A running `sink store` may go on.
    """
    from functools import partial

    from infra import logs
    from infra.connections import check_connection
    from infra.runtime import run_process
    from infra.store_report import rebuild as run

    settings = settings.checked_fully()
    if not yes:
        click.confirm("Images older than the log's retention will be lost. Rebuild?", abort=True)
    logs.set_up(settings.log)
    check_connection(settings.connection)
    run_process(partial(run, settings, click.echo), settings.general.grace_s)
