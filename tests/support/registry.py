"""A schema registry on loopback that gets into trouble on request: as much of Confluent's API as the project uses."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

T = TypeVar("T")


@dataclass(slots=True)
class FakeRegistry:
    """`trouble` None works; `hung`, `reset`, `nonsense`, `list`, `empty` or a status do not. `slept` is for a client's pauses.
    `raced`: the first to make a subject's rule learns that somebody else just did."""

    trouble: str | None = None
    id_per_subject: bool = False
    raced: bool = False
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    authorization: set[str | None] = field(default_factory=set)
    slept: list[float] = field(default_factory=list)
    schemas: dict[int, str] = field(default_factory=dict)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    runner: web.AppRunner | None = None

    def add(self, schema: str, schema_id: int | None = None) -> int:
        """Keep a schema that no subject has, under a new id or that one."""
        schema_id = len(self.schemas) + 1 if schema_id is None else schema_id
        self.schemas[schema_id] = schema
        return schema_id

    async def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run what blocks beside the loop that answers it."""
        return await asyncio.to_thread(function, *args, **kwargs)

    async def stop(self) -> None:
        """Listen no more."""
        self.closing.set()
        if self.runner:
            await self.runner.cleanup()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked[f"{request.method} {request.path}"] += 1
        self.authorization.add(request.headers.get("Authorization"))
        if self.trouble:
            return await self._trouble(request, self.trouble)
        match request.path.strip("/").split("/"):
            case ["schemas", "ids", number]:
                schema = self.schemas.get(int(number))
                return _problem(404, 40403) if schema is None else web.json_response({"schema": schema})
            case ["subjects", _, "versions"]:
                return web.json_response({"id": self._register(json.loads(await request.text())["schema"])})
            case ["config", _] if self.raced and self.asked[f"PUT {request.path}"] == 1:
                return _problem(409, 0)
            case ["config", _]:
                return web.json_response(await request.json())
        return _problem(404, 404)

    def _register(self, schema: str) -> int:
        known = [number for number, text in self.schemas.items() if text == schema]
        return known[0] if known and not self.id_per_subject else self.add(schema)

    async def _trouble(self, request: web.Request, trouble: str) -> web.StreamResponse:
        if trouble == "hung":
            await self.closing.wait()
        if trouble == "reset":
            assert request.transport is not None
            request.transport.abort()
        if trouble.isdigit():
            return _problem(int(trouble), int(trouble))
        return web.Response(text={"nonsense": "<html>", "list": "[]"}.get(trouble, ""), content_type="application/json")


def _problem(status: int, code: int) -> web.Response:
    return web.json_response({"error_code": code, "message": "as asked"}, status=status)


@asynccontextmanager
async def fake_registry() -> AsyncIterator[FakeRegistry]:
    """Run one until the block ends; what hangs then is let go."""
    fake = FakeRegistry()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", fake.answer)
    fake.runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await fake.runner.setup()
    await web.TCPSite(fake.runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{fake.runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await fake.stop()
