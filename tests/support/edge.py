"""A small application behind the edge, served on loopback, and raw sockets to misbehave with."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from infra.http.policies import IdentityPolicy, LimitPolicy
from infra.http.slow_clients import runner_options
from infra.http.stack import EdgeParts, protect
from schemas.control import AuditEvent
from schemas.identity import IMAGES_KEY, REQUEST_KEY
from schemas.problems import ProblemError

REQUIRED = IdentityPolicy(mode="required")
UNLIMITED = LimitPolicy()


@dataclass(frozen=True, slots=True)
class Served:
    """Where it is, and what its handlers did."""

    url: str
    port: int
    seen: list[str] = field(default_factory=list)


@asynccontextmanager
async def served(
    parts: EdgeParts, routes: Callable[[web.RouteTableDef], None] = lambda _: None
) -> AsyncIterator[Served]:
    """`POST /v1/images` answers with the tenant, the bytes it read and the request id; more `routes` as a test needs them."""
    app, seen = web.Application(), list[str]()
    table = web.RouteTableDef()
    _basic(table, seen)
    routes(table)
    app.add_routes(table)
    protect(app, parts)
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=1, handler_cancellation=True, **runner_options(parts.limits)
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        yield Served(f"http://127.0.0.1:{port}", port, seen)
    finally:
        await runner.cleanup()


def _basic(table: web.RouteTableDef, seen: list[str]) -> None:
    @table.post("/v1/images")
    async def submit(request: web.Request) -> web.Response:
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
        seen.append(request["request_id"])
        request[IMAGES_KEY] = int(request.query.get("images", 1))
        tenant = request[REQUEST_KEY].tenant
        return web.json_response({"tenant": tenant, "bytes": size}, status=202, headers={"Location": "/v1/images/i1"})

    @table.get("/v1/images/{id}")
    async def image(request: web.Request) -> web.Response:
        return web.json_response({"id": request.match_info["id"], "from": request.remote, "scheme": request.scheme})

    @table.delete("/v1/images/{id}")
    async def delete(_: web.Request) -> web.Response:
        return web.Response(status=204)

    @table.post("/v1/tickets")
    async def ticket(_: web.Request) -> web.Response:
        return web.json_response({}, status=201)

    @table.get("/v1/events")
    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "text/event-stream"
        await response.prepare(request)
        if "break" in request.query:
            raise ProblemError(500, "internal_error", "too late")
        await response.write(b"data: 1\n\n")
        return response

    @table.get("/v1/openapi.json")
    async def document(_: web.Request) -> web.Response:
        return web.json_response({})

    @table.put("/v1/uploads/{token}")
    async def upload(request: web.Request) -> web.Response:
        return web.json_response({"bytes": len(await request.read())}, status=201)

    @table.get("/healthz")
    async def health(_: web.Request) -> web.Response:
        return web.json_response({})


class MemoryAudit:
    """Keeps events; `fails` makes it raise."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.fails = False

    def __call__(self, event: AuditEvent) -> None:
        if self.fails:
            raise OSError("no Kafka")
        self.events.append(event)


async def until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait until a condition holds; fails when the time is over."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.01)


async def raw(port: int, data: bytes, timeout_s: float = 20.0) -> bytes:
    """Send bytes as they are, and read until the server closes or `timeout_s` is over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), timeout_s)
    finally:
        writer.close()
