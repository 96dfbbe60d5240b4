"""The virus scanner: every upload is shown to clamd before anybody may refer to it, and what it did not call clean is not taken."""

import asyncio
import logging
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from schemas.errors import ConfigurationError
from schemas.problems import ProblemError

log = logging.getLogger(__name__)

_LENGTH = struct.Struct(">I")
_PIECE = 128 * 1024
_MAX_REPLY = 4096
_RETRY_AFTER_S = 5.0


class Scanner(Protocol):
    """Looks into uploads."""

    async def scan(self, content: bytes | Path) -> None:
        """Return where the content is clean.

        Raises ProblemError: 422 `image_infected`; 503 `scanner_unavailable` where nobody can tell, for whatever reason.
        """


class NoScanner:
    """Where nothing is scanned."""

    async def scan(self, content: bytes | Path) -> None:
        """Calls everything clean."""


class ClamScanner:
    """clamd's `INSTREAM` at `unix:/PATH` or `tcp://HOST:PORT`; at most `scans` at once, since clamd has so many threads and no more.

    Source: clamd(8). Raises ConfigurationError for an address that is none.
    """

    def __init__(self, address: str, timeout_s: float = 20.0, scans: int = 8) -> None:
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(scans)
        parts = urlsplit(address)
        self._path = parts.path if parts.scheme == "unix" else None
        try:
            self._host, self._port = parts.hostname, parts.port
        except ValueError:
            self._host = None
        if not (self._path or (parts.scheme == "tcp" and self._host and self._port)):
            raise ConfigurationError(f"uploads.scanner: {address!r} is neither unix:/PATH nor tcp://HOST:PORT")

    async def scan(self, content: bytes | Path) -> None:
        """See `Scanner`."""
        try:
            async with asyncio.timeout(self._timeout_s), self._turns, self._connection() as (reader, writer):
                reply = await _instream(reader, writer, content)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise _unavailable(type(error).__name__) from error
        if reply == "stream: OK":
            return
        if reply.startswith("stream: ") and reply.endswith(" FOUND"):
            log.warning("an upload was infected", extra={"found": reply[8:-6][:100]})
            raise ProblemError(422, "image_infected", "the virus scanner found something")
        raise _unavailable(reply[:100])

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        if self._path:
            reader, writer = await asyncio.open_unix_connection(self._path, limit=_MAX_REPLY)
        else:
            reader, writer = await asyncio.open_connection(self._host, self._port, limit=_MAX_REPLY)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()  # it has said all that counts


def open_scanner(address: str, timeout_s: float = 20.0, scans: int = 8) -> Scanner:
    """The scanner at an address; none for an empty one. Raises ConfigurationError."""
    return ClamScanner(address, timeout_s, scans) if address else NoScanner()


async def _instream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes | Path) -> str:
    writer.write(b"zINSTREAM\0")
    try:
        async for piece in _pieces(content):
            writer.write(_LENGTH.pack(len(piece)) + piece)
            await writer.drain()
        writer.write(_LENGTH.pack(0))
    except ConnectionError:
        pass  # clamd says why and hangs up, such as over its StreamMaxLength
    return (await reader.readuntil(b"\0"))[:-1].decode("ascii", "replace").strip()


async def _pieces(content: bytes | Path) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        for at in range(0, len(content), _PIECE):
            yield content[at : at + _PIECE]
        return
    with await asyncio.to_thread(content.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece


def _unavailable(why: str) -> ProblemError:
    log.error("the virus scanner does not answer as it should", extra={"error": why})
    return ProblemError(503, "scanner_unavailable", "the virus scanner does not answer", _RETRY_AFTER_S)
