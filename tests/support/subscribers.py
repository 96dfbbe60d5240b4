"""Events to publish, and clients that listen."""

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from schemas.identity import REQUEST_KEY, Principal
from schemas.problems import CONTENT_TYPE, ProblemError
from sinks.access import Access
from sinks.api import add_routes
from sinks.events import Event, Kind, Subject
from sinks.notifier import Hub, NotifierPolicy

PATIENT_S = 20.0


def event(number: int, *, padding: int = 0, **fields: Any) -> Event:
    """Event `number`: its id and body say so; `fields` are the subject's."""
    subject = Subject(
        **{
            "kind": Kind.RESULT,
            "id": f"r{number}",
            "tenant": "t",
            "batch_id": None,
            "image_id": f"i{number}",
            "key": "",
            "scores": {},
            **fields,
        }
    )
    return Event(subject, f'"id":{json.dumps(subject.id)},"n":{number},"pad":"{"x" * padding}"}}')


def quick(**fields: Any) -> NotifierPolicy:
    """A policy whose waits are short."""
    fast: dict[str, Any] = {"tick_ms": 1.0, "heartbeat_s": 30.0, "drain_s": 5.0, "connects_per_s": 10_000.0}
    return NotifierPolicy(**{**fast, **fields})


def knowing(callers: Mapping[str, Principal]) -> web.Application:
    """An application that knows callers by bearer token (or `ticket`), and says what is wrong, as a gateway does."""

    @web.middleware
    async def identify(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        shown = (request.headers.get("Authorization", "").removeprefix("Bearer "), request.query.get("ticket", ""))
        known = next((callers[token] for token in shown if token in callers), None)
        if known is not None:
            with warnings.catch_warnings(category=web.NotAppKeyWarning, action="ignore"):
                request[REQUEST_KEY] = known  # whose name cannot be aiohttp's: who defines it does not know aiohttp
        try:
            return await handler(request)
        except ProblemError as error:
            return web.json_response(error.document(), status=error.status, content_type=CONTENT_TYPE)

    return web.Application(middlewares=[identify])


@asynccontextmanager
async def serving(
    hub: Hub, access: Access | None = None, callers: Mapping[str, Principal] | None = None, *, opened: bool = True
) -> AsyncIterator[TestServer]:
    """The routes of a hub on loopback; with `access`, for these callers."""
    if opened:
        hub.open()
    app = knowing(callers or {})
    add_routes(app, hub, access)
    server = TestServer(app)
    async with server:
        yield server


class Client:
    """A websocket client that remembers what it heard."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []

    @property
    def cursor(self) -> str:
        """The last one it was given."""
        return str(self.heard[-1]["cursor"])

    def numbers(self) -> list[int]:
        """Numbers of the events heard."""
        return [message["n"] for message in self.heard if "n" in message]

    async def say(self, **message: Any) -> None:
        await self.socket.send_str(json.dumps(message))

    async def hear(
        self, until: Callable[[Sequence[dict[str, Any]]], bool], patient_s: float = PATIENT_S
    ) -> list[dict[str, Any]]:
        """Read until what was heard is enough; returns all of it. AssertionError where the connection ends before."""
        async with asyncio.timeout(patient_s):
            while not until(self.heard):
                frame = await self.socket.receive()
                assert frame.type is aiohttp.WSMsgType.TEXT, (
                    f"{frame}: {self.socket.close_code}, heard {self.heard[-3:]}"
                )
                self.heard += json.loads(frame.data)
        return self.heard

    async def hear_type(self, kind: str) -> dict[str, Any]:
        """Read until a message of this type comes; returns the last of them."""
        heard = await self.hear(lambda messages: any(message["type"] == kind for message in messages))
        return [message for message in heard if message["type"] == kind][-1]

    async def hear_events(self, count: int) -> list[int]:
        """Read until that many events have come; their numbers."""
        await self.hear(lambda _: len(self.numbers()) >= count)
        return self.numbers()

    async def hear_close(self) -> int | None:
        """Read to the end; the close code."""
        async with asyncio.timeout(PATIENT_S):
            async for frame in self.socket:
                self.heard += json.loads(frame.data)
        return self.socket.close_code


@asynccontextmanager
async def connected(server: TestServer, query: str = "", **options: Any) -> AsyncIterator[Client]:
    """A client of `/v1/stream`, such as `connected(server, "?tenant=t")`."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.make_url(f"/v1/stream{query}"), **options) as socket,
    ):
        yield Client(socket)
