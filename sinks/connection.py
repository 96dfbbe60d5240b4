"""One client's side of the hub: the writer that empties its outbox into a websocket or an event stream."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from aiohttp import ClientConnectionResetError, web

from sinks import metrics
from sinks.frames import Frames
from sinks.outbox import Close, Closing, Outbox
from sinks.ring import Message

CLOSE_TIMEOUT_S = 5.0


class Transport(Protocol):
    """How messages reach one client."""

    async def send(self, messages: Sequence[Message]) -> None:
        """Write them, in order; waits while the client does not read. Raises ConnectionError once it is gone."""

    async def close(self, closing: Closing) -> None:
        """Say goodbye; waits while the client does not read."""

    def abort(self) -> None:
        """Drop the connection now."""


class WebSocketTransport:
    """Each frame is a JSON array of messages. `frames` is shared by all: clients that want the same get the same bytes."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse, frames: Frames) -> None:
        self._request, self._socket, self._frames = request, socket, frames

    def write_now(self, messages: Sequence[Message]) -> bool:
        """One text frame, straight to a socket that takes it; False, and nothing is written, while something waits in it."""
        transport = self._request.transport
        if transport is None or transport.is_closing() or self._socket.closed or transport.get_write_buffer_size():
            return False
        transport.write(self._frames.of(messages))
        metrics.ws_sent_messages.inc(len(messages))
        return True

    async def send(self, messages: Sequence[Message]) -> None:
        """One text frame."""
        await self._socket.send_str(f"[{','.join([message.text for message in messages])}]")

    async def close(self, closing: Closing) -> None:
        """The close frame with its code."""
        await self._socket.close(code=closing.code, message=closing.reason.encode())

    def abort(self) -> None:
        """Reset the TCP connection."""
        if self._request.transport is not None:
            self._request.transport.abort()


class EventStreamTransport:
    """Each message is one server-sent event whose id is its cursor; a heartbeat is an id and a comment, which browsers do not show."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request, self._response = request, response

    async def send(self, messages: Sequence[Message]) -> None:
        """One write."""
        await self._response.write("".join([_server_sent(message) for message in messages]).encode("ascii"))

    async def close(self, closing: Closing) -> None:
        """A last `close` event, then the end of the body."""
        await self._response.write(
            f'event: close\ndata: {{"code":{closing.code},"reason":"{closing.reason}"}}\n\n'.encode("ascii")
        )
        await self._response.write_eof()

    def abort(self) -> None:
        """Reset the TCP connection."""
        if self._request.transport is not None:
            self._request.transport.abort()


def _server_sent(message: Message) -> str:
    if message.kind == "heartbeat":
        return f"id: {message.cursor}\n: heartbeat\n\n"
    return f"id: {message.cursor}\nevent: {message.kind}\ndata: {message.text}\n\n"


async def serve(outbox: Outbox, transport: Transport, send_timeout_s: float) -> None:
    """Write a client's messages until it goes or is closed. A client that does not read for `send_timeout_s` is slow; nobody else waits."""
    try:
        while messages := await outbox.take():
            try:
                async with asyncio.timeout(send_timeout_s):
                    await transport.send(messages)
            except TimeoutError:
                outbox.abort(Closing(Close.SLOW, "slow"))
            else:
                metrics.ws_sent_messages.inc(len(messages))
    except (ConnectionError, ClientConnectionResetError):
        return
    await _say_goodbye(outbox, transport)


async def _say_goodbye(outbox: Outbox, transport: Transport) -> None:
    closing = outbox.closing
    assert closing is not None, "an outbox gives nothing only when it closes"
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await transport.close(closing)
            return
    transport.abort()
