"""An image host on loopback that misbehaves on request, for tests of whoever fetches from it."""

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_network

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from detectors.images import ImagePolicy
from detectors.policy import FetchTimeouts
from tests.support.images import encode, photograph

LOOPBACK = (ip_network("127.0.0.0/8"),)
# Soon enough for a test, and late enough for a busy machine to serve a good photograph.
QUICK = FetchTimeouts(total_s=4.0, connect_s=3.0, read_s=1.0, grace_s=0.5, min_bytes_per_s=1024)
PRIVATE = "http://10.255.255.1/photo.jpg"


@dataclass(slots=True)
class ImageHost:
    """Where the host listens, what it was asked for, and the photograph that it serves.

    `/photo.jpg` is fine, and so are `/redirect` and `/slow`. `/status/N`, `/hung`, `/endless`, `/redirect-loop`,
    `/redirect-private`, `/redirect-file`, `/gzip-bomb`, `/wrong-length`, `/drip`, `/large`, `/empty`, `/text`, `/reset` are not.
    `/flaky/N` answers 503 N times and then the photograph.
    """

    port: int = 0
    photo: bytes = field(default_factory=lambda: encode(photograph(), "JPEG"))
    asked: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def policy(self, timeouts: FetchTimeouts = QUICK) -> ImagePolicy:
        """A policy that may fetch from here, and gives up soon."""
        return ImagePolicy(
            ports=frozenset({self.port}),
            extra_networks=LOOPBACK,
            timeouts=timeouts,
            max_bytes=200_000,
            host_failures=1_000,
        )


@asynccontextmanager
async def image_host() -> AsyncIterator[ImageHost]:
    """Run a host until the block ends; what hangs then is let go."""
    host = ImageHost()
    application = web.Application(middlewares=[_count(host)])
    for path, handler in _routes(host).items():
        # A path behind a path does the same, so that clients can be given an endpoint that misbehaves.
        application.add_routes([web.get(path, handler), web.get(path + "/{tail:.*}", handler)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host.port = runner.addresses[0][1]
    try:
        yield host
    finally:
        host.closing.set()
        await runner.cleanup()


def _count(host: ImageHost) -> Middleware:
    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        host.asked[request.path] += 1
        host.headers.append(dict(request.headers))
        return await handler(request)

    return count


def _routes(host: ImageHost) -> dict[str, Handler]:
    async def photo(request: web.Request) -> web.Response:
        return web.Response(body=host.photo, content_type="application/x-whatever")

    async def status(request: web.Request) -> web.Response:
        code = int(request.match_info["code"])
        return web.Response(status=code, headers={"Retry-After": "7"} if code in {429, 503} else {})

    async def flaky(request: web.Request) -> web.Response:
        if host.asked[request.path] <= int(request.match_info["times"]):
            return web.Response(status=503)
        return await photo(request)

    async def slow(request: web.Request) -> web.StreamResponse:
        response = await _start(request, len(host.photo))
        half = len(host.photo) // 2
        await response.write(host.photo[:half])
        await asyncio.sleep(0.1)
        await response.write(host.photo[half:])
        return response

    async def hung(request: web.Request) -> web.Response:
        await host.closing.wait()
        return web.Response()

    async def endless(request: web.Request) -> web.StreamResponse:
        return await _write_until_closed(host, await _start(request), b"\xff\xd8\xff" + bytes(64_000), 0)

    async def drip(request: web.Request) -> web.StreamResponse:
        return await _write_until_closed(host, await _start(request), b"\xff", 0.02)

    async def gzip_bomb(request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"})

    async def wrong_length(request: web.Request) -> web.StreamResponse:
        response = await _start(request, len(host.photo) + 100)
        await response.write(host.photo)
        assert request.transport is not None
        request.transport.close()
        return response

    async def reset(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def large(request: web.Request) -> web.Response:
        return web.Response(body=bytes(300_000))

    return {
        "/photo.jpg": photo,
        "/status/{code}": status,
        "/flaky/{times}": flaky,
        "/slow": slow,
        "/hung": hung,
        "/endless": endless,
        "/drip": drip,
        "/gzip-bomb": gzip_bomb,
        "/wrong-length": wrong_length,
        "/reset": reset,
        "/large": large,
        "/empty": _constant(b""),
        "/text": _constant(b"<html>hello</html>"),
        "/redirect": _redirect("/photo.jpg"),
        "/redirect-loop": _redirect("/redirect-loop"),
        "/redirect-private": _redirect(PRIVATE),
        "/redirect-file": _redirect("file:///etc/passwd"),
        "/redirect-nowhere": _redirect(""),
    }


def _constant(body: bytes) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body)

    return handler


def _redirect(location: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": location} if location else {})

    return handler


async def _start(request: web.Request, length: int | None = None) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = length
    await response.prepare(request)
    return response


async def _write_until_closed(
    host: ImageHost, response: web.StreamResponse, chunk: bytes, pause_s: float
) -> web.StreamResponse:
    with suppress(ConnectionError):
        while not host.closing.is_set():
            await response.write(chunk)
            await asyncio.sleep(pause_s)
    return response
