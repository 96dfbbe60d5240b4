"""Clients that hardly send, send more than they said, or take nothing."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, cast

import pytest
from aiohttp import StreamReader, web

from infra.http.policies import IdentityPolicy, LimitPolicy
from infra.http.slow_clients import SlowClients
from infra.http.stack import EdgeParts
from tests.support.edge import raw, served

HEAD = b"POST /v1/images HTTP/1.1\r\nHost: localhost\r\n"


def _parts(**limits: Any) -> EdgeParts:
    return EdgeParts(identity=IdentityPolicy(), limits=LimitPolicy(**limits))


async def test_a_body_that_trickles_is_cut_off_with_a_problem() -> None:
    async with served(_parts(body_window_s=0.5)) as server:
        got = await raw(server.port, HEAD + b"Content-Length: 100000\r\n\r\nx")
    assert b" 408 " in got[:20]
    assert b'"code":"request_timeout"' in got
    assert b"Connection: close" in got
    assert server.seen == []


async def test_headers_that_trickle_end_the_connection() -> None:
    async with served(_parts(idle_s=0.5)) as server:
        assert await raw(server.port, HEAD + b"X-Slow: ") == b""
        assert await raw(server.port, b"") == b""


async def test_a_body_that_never_says_how_long_it_is_is_cut_off_at_the_bound() -> None:
    async with served(_parts(body_bytes=1_000_000)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

        async def send() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(chunk)
                    await writer.drain()
                    await asyncio.sleep(0.005)

        sending = asyncio.create_task(send())
        got = await asyncio.wait_for(reader.readuntil(b"}"), 30)
        sending.cancel()
        writer.close()
    assert b" 413 " in got[:20]
    assert b"body_too_large" in got
    assert server.seen == []


@pytest.mark.parametrize(
    "said", [b"5", b"-1", b"+5", b"0x5", b"5, 5", b"99999999999999999999999", b"five", b"\xc2\xb2"]
)
async def test_a_content_length_that_lies_costs_its_sender_alone(said: bytes) -> None:
    async with served(_parts(body_window_s=0.5, idle_s=1.0)) as server:
        got = await raw(server.port, HEAD + b"Content-Length: " + said + b"\r\n\r\nabcdefgh")
        # What follows the body that was announced is no request.
        assert got[9:12] in {b"202", b"400", b"413"}, got[:60]
        assert b" 5" not in got[8:13]
        assert (await raw(server.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))[
            9:12
        ] == b"200"


async def test_whoever_takes_nothing_of_an_answer_is_cut_off() -> None:
    ended = asyncio.Event()

    def endless(table: web.RouteTableDef) -> None:
        @table.get("/v1/endless")
        async def pour(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(b"x" * 65_536)
            finally:
                ended.set()

    async with served(_parts(stall_s=0.5), endless) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        cast("asyncio.Transport", writer.transport).pause_reading()
        writer.write(b"GET /v1/endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(ended.wait(), 30)
        writer.close()
        del reader


class _Transport:
    """What `SlowClients` asks of a transport."""

    def __init__(self) -> None:
        self.reading, self.waiting, self.aborted = True, 0, False

    def is_reading(self) -> bool:
        return self.reading

    def is_closing(self) -> bool:
        return self.aborted

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.aborted = True


@dataclass
class _Request:
    """And of a request."""

    content: StreamReader
    transport: _Transport
    body_exists: bool = True


async def _outcome(policy: LimitPolicy, bytes_a_second: list[int], *, reading: bool = True) -> BaseException | None:
    """What a body meets that brings so many bytes in each second."""
    at, go = 0.0, asyncio.Event()
    slow = SlowClients(policy, lambda: at)
    content = StreamReader(_Protocol(), 1 << 30)  # type: ignore[arg-type]
    request = _Request(content, _Transport())
    request.transport.reading = reading

    async def handle(_: web.Request) -> web.Response:
        await go.wait()
        return web.Response()

    task = asyncio.create_task(slow(cast("web.Request", request), handle))
    await asyncio.sleep(0)
    for count in bytes_a_second:
        content.feed_data(b"x" * count)
        at += 1.0
        slow.look()
    go.set()
    await task
    return content.exception()


class _Protocol:
    _reading_paused = False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


POLICY = LimitPolicy(body_bytes_per_s=100, body_window_s=5.0)


@pytest.mark.parametrize(
    ("bytes_a_second", "good"),
    [
        ([100] * 20, True),
        ([1000, *([0] * 5)] * 4, True),  # in bursts, but enough of them
        ([10] * 20, False),
        ([100_000, *([1] * 10)], False),  # what it brought at first does not carry it for ever
        ([0] * 5, True),
        ([0] * 6, False),
    ],
)
async def test_a_body_must_bring_so_much_over_each_window(bytes_a_second: list[int], good: bool) -> None:
    assert (await _outcome(POLICY, bytes_a_second) is None) is good


async def test_who_is_held_back_here_is_not_slow() -> None:
    assert await _outcome(POLICY, [0] * 20, reading=False) is None
