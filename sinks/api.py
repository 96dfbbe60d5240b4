"""The notifier's HTTP routes: `GET /v1/stream` (websocket) and `GET /v1/events` (server-sent events).

Both say the same messages; `docs/notifier.md` describes them. There is no authentication yet: call `admission.check_bind` before binding.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from aiohttp import WSMsgType, web

from sinks import metrics
from sinks.admission import Admission, RefusedError, TokenBucket, check_origin
from sinks.connection import EventStreamTransport, WebSocketTransport, serve
from sinks.filters import InvalidMessageError
from sinks.inbound import Subscription, parse_message, parse_query
from sinks.notifier import Hub, UnavailableError
from sinks.outbox import Close, Closing, Outbox

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_RETRY_MS = 3000
_KNOWN_CODES = frozenset({*Close, 1000, 1005, 1006, 1007})


def add_routes(app: web.Application, hub: Hub) -> None:
    """Mount the routes; the hub starts and drains with the application."""
    streams = _Streams(hub)
    app.router.add_get("/v1/stream", _problems(streams.websocket))
    app.router.add_get("/v1/events", _problems(streams.event_stream))

    async def start(_: web.Application) -> None:
        hub.start()

    async def drain(_: web.Application) -> None:
        await hub.drain()

    app.on_startup.append(start)
    app.on_shutdown.append(drain)


def _problems(handler: Handler) -> Handler:
    """Answers refusals as `application/problem+json` (RFC 9457) with a stable `code`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except RefusedError as error:
            fields = {"title": str(error), "status": error.status, "code": error.code}
            headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
            return web.Response(
                status=error.status,
                headers=headers,
                text=json.dumps(fields),
                content_type="application/problem+json",
            )

    return handle


class _Streams:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._policy = hub.policy
        self._admission = Admission(hub.policy)

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """With a query: subscribed at once. Without: the first message subscribes, within `subscribe_within_s`."""
        self._check(request)
        first = _subscription(request) if request.query else None
        socket = web.WebSocketResponse(
            heartbeat=self._policy.heartbeat_s, max_msg_size=self._policy.inbound_bytes, compress=False
        )
        await socket.prepare(request)
        address = request.remote or ""
        # Browsers do not show the status of a refused handshake, but they do show a close code.
        if not self._admission.enter(address):
            metrics.ws_disconnects.labels(int(Close.LIMIT)).inc()
            await socket.close(code=Close.LIMIT, message=b"too many connections")
            return socket
        try:
            await self._converse(request, socket, first)
        finally:
            self._admission.leave(address)
        return socket

    async def event_stream(self, request: web.Request) -> web.StreamResponse:
        """Subscribed by the query; `Last-Event-ID` resumes. The header `Sightstream-Start` says where it really starts."""
        self._check(request)
        subscription = _subscription(request)
        address = request.remote or ""
        if not self._admission.enter(address):
            raise RefusedError(429, "too_many_connections", "too many connections", 5)
        try:
            with self._place() as outbox:
                return await self._tell(request, outbox, subscription)
        finally:
            self._admission.leave(address)

    def _check(self, request: web.Request) -> None:
        check_origin(request.headers.get("Origin"), request.host, self._policy.origins)
        self._admission.greet()
        if not self._hub.ready:
            raise RefusedError(503, "not_ready", "the notifier is starting or going away", 1)

    @contextmanager
    def _place(self) -> Iterator[Outbox]:
        """A client's place in the hub, for as long as it may stay."""
        try:
            outbox = self._hub.join()
        except UnavailableError as error:
            raise RefusedError(503, "not_ready", str(error), 1) from error
        lifetime_s = self._policy.lifetime_s * random.uniform(1, 2)  # noqa: S311 - jitter
        timer = asyncio.get_running_loop().call_later(lifetime_s, self._hub.retire, outbox, Close.LIFETIME, "lifetime")
        try:
            yield outbox
        finally:
            timer.cancel()
            self._hub.leave(outbox)

    async def _converse(self, request: web.Request, socket: web.WebSocketResponse, first: Subscription | None) -> None:
        try:
            with self._place() as outbox:
                if first is not None:
                    self._hub.subscribe(outbox, first.wanted, first.since)
                deadline = asyncio.get_running_loop().call_later(
                    self._policy.subscribe_within_s, self._expect_subscription, outbox
                )
                transport = WebSocketTransport(request, socket)
                writer = asyncio.create_task(serve(outbox, transport, self._policy.send_timeout_s))
                listener = asyncio.create_task(self._listen(socket, outbox))
                try:
                    await asyncio.wait({writer, listener}, return_when=asyncio.FIRST_COMPLETED)
                    if outbox.closing is not None:
                        await writer  # which says goodbye, within its timeouts
                finally:
                    deadline.cancel()
                    await _end(writer, listener)
                    metrics.ws_disconnects.labels(_code(outbox, socket)).inc()
        except RefusedError:
            await socket.close(code=Close.RESTART, message=b"restart")

    def _expect_subscription(self, outbox: Outbox) -> None:
        if not self._hub.subscribed(outbox):
            outbox.finish(Closing(Close.NO_SUBSCRIPTION, "no subscription in time"))

    async def _listen(self, socket: web.WebSocketResponse, outbox: Outbox) -> None:
        """Read until the client goes or has to."""
        rate = self._policy.inbound_per_minute
        bucket = TokenBucket(rate / 60, rate)
        async for frame in socket:
            if frame.type is WSMsgType.ERROR:
                return
            if not bucket.take():
                outbox.finish(Closing(Close.LIMIT, "too many messages"))
                return
            if frame.type is not WSMsgType.TEXT:
                outbox.finish(Closing(Close.UNSUPPORTED, "text only"))
                return
            try:
                said = parse_message(frame.data)
            except InvalidMessageError as error:
                self._hub.complain(outbox, "invalid_message", str(error))
            else:
                self._hub.subscribe(outbox, said.wanted, said.since)

    async def _tell(self, request: web.Request, outbox: Outbox, subscription: Subscription) -> web.StreamResponse:
        start = self._hub.subscribe(outbox, subscription.wanted, subscription.since)
        response = web.StreamResponse(
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Origin"}
        )
        response.content_type = "text/event-stream"
        response.headers["Sightstream-Start"] = start
        if (origin := request.headers.get("Origin")) is not None:
            response.headers["Access-Control-Allow-Origin"] = origin  # `_check` let it in
            response.headers["Access-Control-Expose-Headers"] = "Sightstream-Start"
        await response.prepare(request)
        try:
            await response.write(f"retry: {_RETRY_MS}\n\n".encode())
            await serve(outbox, EventStreamTransport(request, response), self._policy.send_timeout_s)
        except ConnectionError:
            pass  # gone before the first event
        finally:
            metrics.ws_disconnects.labels(_code(outbox, None)).inc()
        return response


async def _end(*tasks: asyncio.Task[None]) -> None:
    """Cancel what still runs; raise what failed on its own."""
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


def _subscription(request: web.Request) -> Subscription:
    try:
        return parse_query(request.query, request.headers.get("Last-Event-ID"))
    except InvalidMessageError as error:
        raise RefusedError(400, "invalid_query", str(error)) from error


def _code(outbox: Outbox, socket: web.WebSocketResponse | None) -> str:
    """Why a connection ended, as a bounded metric label."""
    if outbox.closing is not None:
        return str(int(outbox.closing.code))
    if socket is not None and isinstance(socket.exception(), TimeoutError):
        return str(int(Close.NO_PONG))
    code = 1006 if socket is None or socket.close_code is None else socket.close_code
    return str(int(code)) if code in _KNOWN_CODES else "other"
