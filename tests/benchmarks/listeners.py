"""Many websocket clients in one process, as cheap as Python makes them: what they cost, the server on the same machine does not have.

They shake hands and read; frames are not taken apart, and what they are looked at for is found in the bytes.
"""

import re
import selectors
import socket
import time
from array import array
from collections.abc import Callable

from tests.support.stalled import handshake

_SENT = re.compile(rb'"t": ?"(\d+)"')
_AT_ONCE = 1 << 16
_QUIET_S = 1.0
_SPLIT = 40  # bytes: a moment in a frame is shorter


class Listeners:
    """Connected clients. `latencies_ms`: of each event that came, from the moment that it says to the arrival of its last byte."""

    def __init__(self, port: int, path: Callable[[int], str], count: int) -> None:
        self.latencies_ms = array("d")
        self._selector = selectors.EpollSelector()
        for number in range(count):
            self._selector.register(_connect(port, path(number)), selectors.EVENT_READ, _Rest())

    def listen(self, expected: Callable[[], int | None]) -> None:
        """Read until as many came as `expected` says once it knows, or then a second passes without any."""
        last, wanted = time.monotonic(), None
        while wanted is None or (len(self.latencies_ms) < wanted and time.monotonic() - last < _QUIET_S):
            wanted = wanted or expected()
            if self._read():
                last = time.monotonic()

    def close(self) -> None:
        """Leave without a farewell."""
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _read(self) -> bool:
        ready = self._selector.select(0.05)
        for key, _ in ready:
            assert isinstance(key.fileobj, socket.socket)
            data = key.fileobj.recv(_AT_ONCE)
            now = time.monotonic_ns()
            if not data:
                self._selector.unregister(key.fileobj)
                key.fileobj.close()
            self.latencies_ms.extend([(now - sent) / 1e6 for sent in key.data.take(data)])
        return bool(ready)


class _Rest:
    """What a client read last, as far as a moment may begin in it."""

    def __init__(self) -> None:
        self._bytes = b""

    def take(self, data: bytes) -> list[int]:
        joined = self._bytes + data
        found = list(_SENT.finditer(joined))
        self._bytes = joined[max(found[-1].end() if found else 0, len(joined) - _SPLIT) :]
        return [int(one[1]) for one in found]


def _connect(port: int, path: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(handshake(path))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(1)  # nothing of the first frame
    if not answer.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(answer.split(b"\r\n", 1)[0].decode())
    client.setblocking(False)
    return client
