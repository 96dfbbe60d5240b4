"""The streams' HTTP routes: `GET /v1/stream` (websocket) and `GET /v1/events` (server-sent events).

Both say the same messages; `docs/notifier.md` describes them.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import WSMsgType, web

from schemas.identity import Principal
from schemas.problems import CONTENT_TYPE, ProblemError
from sinks import metrics
from sinks.access import Access
from sinks.admission import Admission, TokenBucket, check_origin
from sinks.connection import EventStreamTransport, WebSocketTransport, serve
from sinks.filters import InvalidMessageError
from sinks.frames import Frames
from sinks.inbound import TICKET, Subscription, parse_message, parse_query
from sinks.notifier import Hub, UnavailableError, every
from sinks.outbox import Close, Closing, Outbox

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_RETRY_MS = 3000
_KNOWN_CODES = frozenset({*Close, 1000, 1005, 1006, 1007})


def add_routes(app: web.Application, hub: Hub, access: Access | None = None) -> None:
    """Mount the routes; the hub starts and drains with the application.

    With `access` callers hear their own tenant alone; something before these routes verifies who they are and which web pages may ask,
    and renders ProblemError. Without, anybody hears everybody: call `admission.check_bind` before binding.
    """
    streams = _Streams(hub, access)
    wrap = _problems if access is None else _plain
    app.router.add_get("/v1/stream", wrap(streams.websocket), allow_head=False)
    app.router.add_get("/v1/events", wrap(streams.event_stream), allow_head=False)

    async def start(_: web.Application) -> None:
        hub.start()

    async def drain(_: web.Application) -> None:
        await hub.drain()

    app.on_startup.append(start)
    app.on_shutdown.append(drain)
    if access is not None:
        app.cleanup_ctx.append(_sweeping(access, hub.policy.recheck_s))


def _sweeping(access: Access, every_s: float) -> Callable[[web.Application], AsyncIterator[None]]:
    async def sweep(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(every(lambda: every_s, access.sweep))
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    return sweep


def _plain(handler: Handler) -> Handler:
    return handler


def _problems(handler: Handler) -> Handler:
    """Renders refusals (RFC 9457) where nothing else of the application does."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ProblemError as error:
            headers = {} if error.retry_after_s is None else {"Retry-After": f"{error.retry_after_s:.0f}"}
            return web.json_response(error.document(), status=error.status, headers=headers, content_type=CONTENT_TYPE)

    return handle


@dataclass(frozen=True, slots=True)
class _Visitor:
    """Who is at the other end; without a principal everybody's events are open to it."""

    address: str
    principal: Principal | None

    @property
    def tenant(self) -> str:
        return "" if self.principal is None else self.principal.tenant

    def confined(self, said: Subscription) -> Subscription:
        """What was asked for, within what may be had. Raises InvalidMessageError."""
        if self.principal is None:
            return said
        return Subscription(said.wanted.within(self.principal.tenant), said.since)


class _Streams:
    def __init__(self, hub: Hub, access: Access | None) -> None:
        self._hub, self._access = hub, access
        self._policy = hub.policy
        self._admission = Admission(hub.policy)
        self._frames = Frames()

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """With a query: subscribed at once. Without: the first message subscribes, within `subscribe_within_s`."""
        visitor = self._check(request)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise ProblemError(
                HTTPStatus.UPGRADE_REQUIRED, "upgrade_required", "this is a websocket: ask for an upgrade"
            )
        first = _subscription(request, visitor) if request.query.keys() - {TICKET} else None
        socket = web.WebSocketResponse(
            heartbeat=self._policy.heartbeat_s, max_msg_size=self._policy.inbound_bytes, compress=False
        )
        await socket.prepare(request)
        # Browsers do not show the status of a refused handshake, but they do show a close code.
        if not self._admission.enter(visitor.address, visitor.tenant):
            metrics.ws_disconnects.labels(int(Close.LIMIT)).inc()
            await socket.close(code=Close.LIMIT, message=b"too many connections")
            return socket
        try:
            await self._converse(request, socket, visitor, first)
        finally:
            self._admission.leave(visitor.address, visitor.tenant)
        return socket

    async def event_stream(self, request: web.Request) -> web.StreamResponse:
        """Subscribed by the query; `Last-Event-ID` resumes. The header `Sightstream-Start` says where it really starts."""
        visitor = self._check(request)
        subscription = _subscription(request, visitor)
        if not self._admission.enter(visitor.address, visitor.tenant):
            raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, "too_many_connections", "too many connections", 5)
        try:
            with self._place(visitor) as outbox:
                return await self._tell(request, outbox, subscription)
        finally:
            self._admission.leave(visitor.address, visitor.tenant)

    def _check(self, request: web.Request) -> _Visitor:
        principal = None if self._access is None else self._access.caller(request)
        if self._access is None:
            check_origin(request.headers.get("Origin"), request.host, self._policy.origins)
        self._admission.greet()
        if not self._hub.ready:
            raise _not_ready()
        return _Visitor(request.remote or "", principal)

    @contextmanager
    def _place(self, visitor: _Visitor) -> Iterator[Outbox]:
        """A client's place in the hub, for as long as it may stay."""
        try:
            outbox = self._hub.join()
        except UnavailableError as error:
            raise _not_ready() from error
        lifetime_s = self._policy.lifetime_s * random.uniform(1, 2)  # noqa: S311 - jitter
        timer = asyncio.get_running_loop().call_later(lifetime_s, self._hub.retire, outbox, Close.LIFETIME, "lifetime")
        try:
            with self._watched(visitor, outbox):
                yield outbox
        finally:
            timer.cancel()
            self._hub.leave(outbox)

    @contextmanager
    def _watched(self, visitor: _Visitor, outbox: Outbox) -> Iterator[None]:
        """Closed as soon as the visitor's credential ends."""
        if self._access is None or visitor.principal is None:
            yield
            return
        self._access.enter(visitor.principal, outbox)
        try:
            yield
        finally:
            self._access.leave(visitor.principal, outbox)

    async def _converse(
        self, request: web.Request, socket: web.WebSocketResponse, visitor: _Visitor, first: Subscription | None
    ) -> None:
        try:
            with self._place(visitor) as outbox:
                if first is not None:
                    self._hub.subscribe(outbox, first.wanted, first.since)
                deadline = asyncio.get_running_loop().call_later(
                    self._policy.subscribe_within_s, self._expect_subscription, outbox
                )
                transport = WebSocketTransport(request, socket, self._frames)
                outbox.attach(transport.write_now)
                writer = asyncio.create_task(serve(outbox, transport, self._policy.send_timeout_s))
                listener = asyncio.create_task(self._listen(socket, outbox, visitor))
                try:
                    await asyncio.wait({writer, listener}, return_when=asyncio.FIRST_COMPLETED)
                    if outbox.closing is not None:
                        await writer  # which says goodbye, within its timeouts
                finally:
                    deadline.cancel()
                    await _end(writer, listener)
                    metrics.ws_disconnects.labels(_code(outbox, socket)).inc()
        except ProblemError:  # the hub began to drain during the handshake
            await socket.close(code=Close.RESTART, message=b"restart")

    def _expect_subscription(self, outbox: Outbox) -> None:
        if not self._hub.subscribed(outbox):
            outbox.finish(Closing(Close.NO_SUBSCRIPTION, "no subscription in time"))

    async def _listen(self, socket: web.WebSocketResponse, outbox: Outbox, visitor: _Visitor) -> None:
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
            if self._access is not None and visitor.principal is not None:
                self._access.close_if_ended(visitor.principal, outbox)
            self._hear(frame.data, outbox, visitor)

    def _hear(self, text: str, outbox: Outbox, visitor: _Visitor) -> None:
        try:
            said = visitor.confined(parse_message(text))
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
        if self._access is None and (origin := request.headers.get("Origin")) is not None:
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


def _subscription(request: web.Request, visitor: _Visitor) -> Subscription:
    try:
        return visitor.confined(parse_query(request.query, request.headers.get("Last-Event-ID")))
    except InvalidMessageError as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "invalid_query", str(error)) from error


def _not_ready() -> ProblemError:
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", "the notifier is starting or going away", 1)


def _code(outbox: Outbox, socket: web.WebSocketResponse | None) -> str:
    """Why a connection ended, as a bounded metric label."""
    if outbox.closing is not None:
        return str(int(outbox.closing.code))
    if socket is not None and isinstance(socket.exception(), TimeoutError):
        return str(int(Close.NO_PONG))
    code = 1006 if socket is None or socket.close_code is None else socket.close_code
    return str(int(code)) if code in _KNOWN_CODES else "other"
