"""The HTTP server of a process: health, readiness, metrics, and the routes of whoever has some."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from infra.runtime import Run, run_together
from infra.sections import HttpSettings
from infra.settings import Settings
from infra.telemetry import Health, describe_build
from schemas.errors import ConfigurationError
from sinks.admission import check_bind

log = logging.getLogger(__name__)

AddRoutes = Callable[[web.Application], None]

RUNNER_OPTIONS: web.AppKey[dict[str, Any]] = web.AppKey("runner_options", dict)
"""Under this name an application may say how it is to be served: keywords of `aiohttp.web.AppRunner`."""

_HEALTH: web.AppKey[Health] = web.AppKey("health", Health)
_DRAIN_S = 5.0


def build(health: Health, *routes: AddRoutes) -> web.Application:
    """The application: `/healthz`, `/readyz`, `/metrics` and what `routes` add."""
    app = web.Application()
    app[_HEALTH] = health
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.router.add_get("/metrics", _metrics)
    for add in routes:
        add(app)
    return app


@asynccontextmanager
async def serving(app: web.Application, http: HttpSettings, *, guarded: bool = False) -> AsyncIterator[str]:
    """Serve while the block runs; gives the base URL. `http.port` 0 takes a free port.

    `guarded`: the application itself knows whom it lets in. Raises ConfigurationError where the port is taken, or where it is not
    guarded, the host is not loopback and `http.public` is not set.
    """
    check_bind(http.host, public=http.public or guarded)
    options = {"access_log": None, "shutdown_timeout": _DRAIN_S, "handler_cancellation": True}
    runner = web.AppRunner(app, **options | app.get(RUNNER_OPTIONS, {}))
    await runner.setup()
    try:
        site = web.TCPSite(runner, http.host, http.port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(f"cannot serve HTTP on {http.host}:{http.port}: {error.strerror}") from error
        port = runner.addresses[0][1]
        host = f"[{http.host}]" if ":" in http.host else http.host
        log.info("serving HTTP", extra={"host": http.host, "port": port})
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def run_alone(
    settings: Settings, parts: Callable[[Health], Mapping[str, Run]], stop: asyncio.Event, *, http: bool
) -> None:
    """A process of these parts alone; with `http`, its health and metrics at `http.port`."""
    describe_build(settings.general.git_sha)
    health = Health()
    running = parts(health)
    if not http:
        await run_together(running, stop)
        return
    async with serving(build(health), settings.http):
        await run_together(running, stop, health.stopping)


async def _healthz(request: web.Request) -> web.Response:
    wrong = request.app[_HEALTH].alive()
    return web.json_response({"status": "failing" if wrong else "ok", **wrong}, status=503 if wrong else 200)


async def _readyz(request: web.Request) -> web.Response:
    missing = request.app[_HEALTH].unready()
    return web.json_response({"status": "not ready" if missing else "ready", **missing}, status=503 if missing else 200)


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
