"""Websocket clients that never read."""

import contextlib
import socket
from collections.abc import Iterator

_RECEIVE_BYTES = 4096


def handshake(path: str) -> bytes:
    """What a client sends to have a websocket."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


@contextlib.contextmanager
def stalled_clients(port: int, path: str, count: int) -> Iterator[None]:
    """So many connections that were opened and are never read from, with as little room in between as the system allows."""
    with contextlib.ExitStack() as opened:
        for _ in range(count):
            client = opened.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            client.connect(("127.0.0.1", port))
            client.sendall(handshake(path))
        yield
