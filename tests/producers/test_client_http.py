"""When the client tries again: full jitter, what the server asks for, and a bound in time, on a clock that the test holds."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from producers.client_forms import SubmitOptions, request_of_several, upload_body
from producers.client_http import ClientPolicy, Connection, Request, UnreachableError
from schemas.problems import ProblemError

GET = Request(method="GET", path="/x")


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Written:
    """What a body wrote."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def write(self, piece: bytes) -> None:
        self.sizes.append(len(piece))


async def tried(answer: web.Response | None, policy: ClientPolicy) -> tuple[Clock, Exception]:
    """What a client did, and what it raised, where every request got this answer, or none."""
    clock = Clock()

    async def handle(request: web.Request) -> web.Response:
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        return web.Response(status=answer.status, headers=answer.headers)

    app = web.Application()
    app.router.add_get("/x", handle)
    async with TestServer(app) as server:
        connection = Connection(str(server.make_url("")), "", policy, clock.sleep, lambda: clock.now)
        with pytest.raises((ProblemError, UnreachableError)) as raised:
            await connection.send(GET)
        await connection.close()
    return clock, raised.value


async def test_pauses_are_drawn_below_a_bound_that_doubles_up_to_a_cap() -> None:
    policy = ClientPolicy(retry_for_s=1000, backoff_s=1.0, backoff_cap_s=16.0)
    clock, error = await tried(None, policy)
    bounds = [min(16.0, 2.0**number) for number in range(len(clock.pauses))]
    assert all(0 <= pause <= bound for pause, bound in zip(clock.pauses, bounds, strict=True))
    assert 984 <= clock.now <= 1000, "it goes on for as long as another try may fit"
    spread = sum(pause < bound / 2 for pause, bound in zip(clock.pauses, bounds, strict=True)) / len(bounds)
    assert 0.2 < spread < 0.8, "anything up to the bound"
    assert isinstance(error, UnreachableError)


@pytest.mark.parametrize("date", [False, True], ids=["seconds", "date"])
async def test_the_server_says_when(*, date: bool) -> None:
    text = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True) if date else "40"
    answer = web.Response(status=503, headers={"Retry-After": text})
    clock, error = await tried(answer, ClientPolicy(retry_for_s=200, backoff_s=1.0))
    assert all(35 <= pause <= 40 + 20 for pause in clock.pauses), "what is asked for, and jitter on top"
    assert 3 <= len(clock.pauses) <= 5
    assert isinstance(error, ProblemError)
    assert error.retry_after_s is not None
    assert 35 <= error.retry_after_s <= 40


@pytest.mark.parametrize("text", ["soon", "-5", ""])
async def test_a_retry_after_that_says_nothing(text: str) -> None:
    answer = web.Response(status=502, headers={"Retry-After": text})
    clock, error = await tried(answer, ClientPolicy(retry_for_s=3, backoff_s=1.0))
    assert clock.pauses
    assert (error.status, error.code) == (502, "unknown") if isinstance(error, ProblemError) else False


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 410, 413, 422, 500])
async def test_what_would_be_the_same_again_is_not_tried_again(status: int) -> None:
    clock, error = await tried(web.Response(status=status, headers={"Location": "http://127.0.0.1:9/"}), ClientPolicy())
    assert not clock.pauses
    assert isinstance(error, ProblemError)
    assert error.status == status


async def test_the_credential_is_shown_to_the_gateway_alone() -> None:
    shown: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        shown.append(request.headers.get("Authorization"))
        return web.Response()

    app = web.Application()
    app.router.add_put("/bucket/object", handle)
    async with TestServer(app) as store:
        connection = Connection("http://127.0.0.1:9", "s3cret", ClientPolicy())
        await connection.send(
            Request(method="PUT", path=str(store.make_url("/bucket/object")), body=lambda: upload_body(b"picture"))
        )
        await connection.close()
    assert shown == [None]


async def test_a_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(5_000_000)
    form = request_of_several([path, path], SubmitOptions())
    assert form.body is not None
    body, written = form.body(), Written()
    assert isinstance(body, aiohttp.MultipartWriter)
    await body.write(written)  # type: ignore[arg-type]
    assert sum(written.sizes) == body.size
    assert sum(written.sizes) > 10_000_000
    assert max(written.sizes) <= 256 << 10
