"""clamd with one signature of our own, or, where it is not installed, a server that speaks its protocol and knows the same signature."""

import asyncio
import shutil
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from tests.support.deliveries import eventually

SIGNATURE = b"SIGHTSTREAM-TEST-SIGNATURE-7f3a"
NAME = "Sightstream.Test"
STREAM_MAX = 2_000_000
CLAMD = shutil.which("clamd", path="/usr/sbin:/usr/local/sbin:/usr/bin")


@contextmanager
def real_clamd() -> Iterator[str]:
    """The daemon itself; gives its address."""
    assert CLAMD is not None
    with tempfile.TemporaryDirectory(prefix="clamd-") as name:
        folder = Path(name)
        (folder / "db").mkdir()
        (folder / "db" / "test.ndb").write_text(f"{NAME}:0:*:{SIGNATURE.hex()}\n")
        socket, config = folder / "clamd.sock", folder / "clamd.conf"
        config.write_text(
            f"LocalSocket {socket}\nDatabaseDirectory {folder / 'db'}\nForeground yes\nStreamMaxLength {STREAM_MAX}\n"
            f"TemporaryDirectory {folder}\nOfficialDatabaseOnly no\n"
        )
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([CLAMD, "-c", str(config)], stdout=log, stderr=log)
            try:
                eventually(socket.exists, "clamd's socket", 60)
                yield f"unix:{socket}"
            finally:
                process.kill()
                process.wait(10)


@asynccontextmanager
async def stub_clamd() -> AsyncIterator[str]:
    """The protocol of clamd(8), for `zINSTREAM`, over TCP; gives its address."""
    async with serving(_reply) as address:
        yield address


@asynccontextmanager
async def serving(reply: Callable[[asyncio.StreamReader], Awaitable[bytes]]) -> AsyncIterator[str]:
    """A server that says one thing to each who connects, and hangs up; gives its address."""
    handlers: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            writer.write(await reply(reader))
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        await asyncio.gather(*(handler for handler in handlers if handler), return_exceptions=True)


async def _reply(reader: asyncio.StreamReader) -> bytes:
    assert await reader.readexactly(10) == b"zINSTREAM\0"
    content = b""
    while length := struct.unpack(">I", await reader.readexactly(4))[0]:
        content += await reader.readexactly(length)
        if len(content) > STREAM_MAX:
            return b"INSTREAM size limit exceeded. ERROR\0"
    return f"stream: {NAME}.UNOFFICIAL FOUND\0".encode() if SIGNATURE in content else b"stream: OK\0"
