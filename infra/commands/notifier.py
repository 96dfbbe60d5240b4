"""`sightstream notifier`: results and failures to websocket and SSE subscribers."""

from typing import TYPE_CHECKING

import click

from infra.settings import Settings

if TYPE_CHECKING:
    import asyncio

    from infra.runtime import Run
    from infra.server import AddRoutes
    from infra.telemetry import Health


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

    settings = settings.overriding({"http.host": host, "http.port": port})
    logs.set_up(settings.log)
    check_connection(settings.connection)
    run_process(partial(_run, settings), settings.general.grace_s)


def open_notifier(settings: Settings, health: "Health") -> tuple["Run", "AddRoutes"]:
    """The part that follows the log, and the routes of its hub. Ready once the recent past has been read."""
    import asyncio

    from infra.runtime import first_of
    from infra.wiring import open_codec
    from sinks.api import add_routes
    from sinks.notifier import Hub
    from streams.tail import Tail

    hub = Hub(settings.notifier)
    group = f"{settings.kafka.group}.notifier"
    tail = Tail(settings.connection, open_codec(settings), settings.topics, settings.tail, group)
    health.must_be_ready("notifier", lambda: None if hub.ready else "is reading its history")

    async def run(stop: asyncio.Event) -> None:
        work = asyncio.ensure_future(tail.run(hub))
        await first_of(work, stop)
        tail.stop()
        await work

    return run, lambda app: add_routes(app, hub)


async def _run(settings: Settings, stop: "asyncio.Event") -> None:
    from infra.runtime import run_together
    from infra.server import build, serving
    from infra.telemetry import Health, describe_build

    describe_build(settings.general.git_sha)
    health = Health()
    part, routes = open_notifier(settings, health)
    async with serving(build(health, routes), settings.http):
        await run_together({"notifier": part}, stop, health.stopping)
