"""`sightstream gateway`: the way in and out over HTTP."""

import click

from infra.settings import Settings


@click.command("gateway")
@click.option("--host", help="Address to serve on, over http.host. Beyond loopback identity.mode must be required.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port of everything it serves, over http.port; 0 takes a free one."
)
@click.pass_obj
def command(settings: Settings, host: str | None, port: int | None) -> None:
    """Take images over HTTP and give results: upload, poll, push, and a page to look at.

    Run as many as you like on one result store, which `sightstream sink store` fills.
    """
    from functools import partial

    from infra import logs
    from infra.connections import check_connection
    from infra.runtime import run_process
    from infra.services import run_gateway
    from infra.wiring import open_publisher

    settings = settings.overriding({"http.host": host, "http.port": port}).checked_fully()
    logs.set_up(settings.log)
    check_connection(settings.connection)
    with open_publisher(settings) as publisher:
        run_process(partial(run_gateway, settings, publisher), settings.general.grace_s)
