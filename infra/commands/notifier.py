"""`sightstream notifier`: results and failures to websocket and SSE subscribers."""

import click

from infra.settings import Settings


@click.command("notifier")
@click.option("--host", help="Address to serve on, over http.host.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port of everything it serves, over http.port; 0 takes a free one."
)
@click.pass_obj
def command(settings: Settings, host: str | None, port: int | None) -> None:
    """Push results to subscribers of /v1/stream (websocket) and /v1/events (SSE). Run as many as you like: each reads everything."""
    from functools import partial

    from infra import logs
    from infra.connections import check_connection
    from infra.runtime import run_process
    from infra.services import run_notifier

    settings = settings.overriding({"http.host": host, "http.port": port}).checked_fully()
    logs.set_up(settings.log)
    check_connection(settings.connection)
    run_process(partial(run_notifier, settings), settings.general.grace_s)
