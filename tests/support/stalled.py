"""Websocket clients that never read."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_RECEIVE_BYTES = 4096


@contextlib.asynccontextmanager
async def stalled_clients(port: int, path: str, count: int) -> AsyncIterator[None]:
    """So many connections that were opened and are never read from, with as little room in between as the system allows."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as opened:
        for _ in range(count):
            client = opened.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", port))
            await loop.sock_sendall(client, _HANDSHAKE.format(path=path).encode())
        yield
