"""Limits per tenant, quotas, shedding, and what callers are told about them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from infra.http.identity import Credentials
from infra.http.policies import Allowance, LimitPolicy
from infra.http.quotas import Quota, Quotas
from infra.http.stack import EdgeParts
from infra.settings import load
from schemas.errors import ConfigurationError
from schemas.identity import Principal, Scope
from schemas.records import Lane
from tests.support.edge import REQUIRED, Served, served
from tests.support.redis import running_redis

FREE = Allowance(requests_per_s=None, in_flight=None)


class Names:
    """Takes every bearer word for a tenant."""

    async def verify(self, token: str) -> Principal | None:
        return Principal(tenant=token, subject=token, scopes=frozenset(Scope))


@dataclass
class Waiting:
    """A backlog as a test says."""

    online: int | None = 0
    bulk: int | None = 0

    def lag(self, lane: Lane) -> int | None:
        return self.online if lane is Lane.ONLINE else self.bulk


def parts(limits: LimitPolicy, backlog: Waiting | None = None) -> EdgeParts:
    return EdgeParts(identity=REQUIRED, limits=limits, credentials=Credentials(tokens=Names()), backlog=backlog)


def every(**limits: int | None) -> LimitPolicy:
    return LimitPolicy(every_tenant=replace(FREE, **limits))


@dataclass(frozen=True)
class Caller:
    server: Served
    session: aiohttp.ClientSession

    async def __call__(
        self, tenant: str, method: str = "POST", path: str = "/v1/images", body: Any = b"", **headers: str
    ) -> aiohttp.ClientResponse:
        headers = {"Authorization": f"Bearer {tenant}"} | headers
        async with self.session.request(method, f"{self.server.url}{path}", data=body, headers=headers) as answer:
            await answer.read()
            return answer


@asynccontextmanager
async def calling(edge: EdgeParts, routes: Any = lambda _: None) -> AsyncIterator[Caller]:
    async with served(edge, routes) as server, aiohttp.ClientSession() as session:
        yield Caller(server, session)


async def code_of(answer: aiohttp.ClientResponse) -> str:
    return str((await answer.json(content_type=None))["code"])


async def test_each_tenant_has_its_own_rate_and_is_told_how_it_stands() -> None:
    async with calling(parts(every(requests_per_s=3))) as call:
        answers = [await call("acme", "GET", "/v1/images/a") for _ in range(8)]
        good = [answer for answer in answers if answer.status == 200]
        refused = [answer for answer in answers if answer.status == 429]
        assert len(good) >= 3
        assert refused
        assert good[0].headers["RateLimit-Limit"] == "3"
        assert good[0].headers["RateLimit-Remaining"] == "2"
        assert good[0].headers["RateLimit-Policy"] == "3;w=1"
        assert int(good[0].headers["RateLimit-Reset"]) <= 1
        assert await code_of(refused[0]) == "rate_limited"
        assert refused[0].headers["Retry-After"] == "1"
        assert refused[0].headers["RateLimit-Remaining"] == "0"
        assert (await call("other", "GET", "/v1/images/a")).status == 200


async def test_the_refused_may_come_again_when_they_were_told_to() -> None:
    quotas, quota = Quotas(LimitPolicy()), Quota("requests", 1, "second")
    assert (await quotas.take(quota, "acme")).taken
    standing = await quotas.look(quota, "acme")
    assert standing.remaining == 0
    assert 0 <= standing.reset_s <= 1


async def test_requests_at_once_are_counted_until_they_are_done() -> None:
    go = asyncio.Event()

    def held(table: web.RouteTableDef) -> None:
        @table.get("/v1/held")
        async def hold(_: web.Request) -> web.Response:
            await go.wait()
            return web.Response()

    async with calling(parts(every(in_flight=2)), held) as call:
        first = [asyncio.create_task(call("acme", "GET", "/v1/held")) for _ in range(2)]
        refused = None

        async def third() -> None:
            nonlocal refused
            while refused is None or refused.status != 429:
                refused = await call("acme", "GET", "/v1/images/a")

        await asyncio.wait_for(third(), 20)
        assert refused is not None
        assert await code_of(refused) == "too_many_in_flight"
        assert (await call("other", "GET", "/v1/images/a")).status == 200
        assert (await call("acme", "GET", "/v1/events")).status == 200  # streams have limits of their own
        go.set()
        assert [(await answer).status for answer in first] == [200, 200]
        assert (await call("acme", "GET", "/v1/images/a")).status == 200


async def test_a_process_takes_only_so_many_requests_whose_ever_they_are() -> None:
    async with calling(parts(LimitPolicy(every_tenant=FREE, in_flight=0))) as call:
        answer = await call("acme", "GET", "/v1/images/a")
        assert (answer.status, await code_of(answer)) == (503, "overloaded")
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await call("acme", "GET", "/healthz")).status == 200


async def test_bytes_of_a_minute_and_of_a_day_are_bounded_before_a_body_is_read() -> None:
    async with calling(parts(every(bytes_per_minute=100, bytes_per_day=150))) as call:
        assert (await call("acme", body=b"x" * 60)).status == 202
        refused = await call("acme", body=b"x" * 60)
        assert (refused.status, await code_of(refused)) == (429, "rate_limited")
        assert 1 <= int(refused.headers["Retry-After"]) <= 120
        assert (await call("acme", body=b"x" * 30)).status == 202
        assert (await call("other", body=b"x" * 60)).status == 202
        assert len(call.server.seen) == 3
    async with calling(parts(every(bytes_per_day=100))) as call:
        assert (await call("acme", body=b"x" * 99)).status == 202
        refused = await call("acme", body=b"x" * 2)
        assert (refused.status, await code_of(refused)) == (429, "quota_exceeded")
        assert int(refused.headers["Retry-After"]) > 80_000
        assert (await call("acme", body=b"x")).status == 202  # what was refused was not charged


async def test_bytes_of_unknown_length_are_charged_too() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 10

    async with calling(parts(every(bytes_per_day=50))) as call:
        assert (await call("acme", body=chunks())).status == 202
        refused = await call("acme", body=b"x")
        assert (refused.status, await code_of(refused)) == (429, "quota_exceeded")


async def test_images_of_a_day_are_those_that_were_taken() -> None:
    async with calling(parts(every(images_per_day=5))) as call:
        assert (await call("acme", path="/v1/images?images=3")).status == 202
        assert (await call("acme", path="/v1/images?images=3")).status == 202  # known only once they were read
        refused = await call("acme")
        assert (refused.status, await code_of(refused)) == (429, "quota_exceeded")
        assert refused.headers["RateLimit-Limit"] == "5"
        assert (await call("acme", "GET", "/v1/images/a")).status == 200
        assert (await call("other")).status == 202


async def test_a_tenant_may_have_limits_of_its_own() -> None:
    settings = load(
        environ={"SIGHTSTREAM_LIMITS_EVERY_TENANT_IMAGES_PER_DAY": "1"},
        overrides={"limits.tenants.acme.images_per_day": "2"},
    )
    assert settings.limits.of("acme").images_per_day == 2
    assert settings.limits.of("acme").in_flight == Allowance().in_flight
    assert settings.limits.of("other").images_per_day == 1


@pytest.mark.parametrize("name", ["limits.tenants.acme.images", "limits.tenants.a/b.in_flight"])
def test_limits_of_nobody_or_of_nothing_are_an_error(name: str) -> None:
    with pytest.raises(ConfigurationError, match="limits"):
        load(environ={}, overrides={name: "1"}).section("limits")
    with pytest.raises(ConfigurationError, match="whole number"):
        load(environ={}, overrides={"limits.tenants.acme.in_flight": "many"}).section("limits")


async def test_no_images_are_taken_while_too_many_wait_and_everything_else_goes_on() -> None:
    backlog = Waiting(online=11, bulk=0)
    limits = LimitPolicy(every_tenant=FREE, max_lag_online=10, max_lag_bulk=100)
    async with calling(parts(limits, backlog)) as call:
        refused = await call("acme")
        assert (refused.status, await code_of(refused)) == (503, "overloaded")
        assert 5 <= int(refused.headers["Retry-After"]) <= 10
        assert (await call("acme", path="/v1/images?lane=bulk")).status == 202
        assert (await call("acme", "GET", "/v1/images/a")).status == 200
        backlog.online, backlog.bulk = 10, 101
        assert (await call("acme")).status == 202
        assert (await call("acme", path="/v1/images?lane=bulk")).status == 503
        backlog.online = None  # nobody knows: taken
        assert (await call("acme")).status == 202


async def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    async with calling(parts(LimitPolicy(every_tenant=FREE, body_bytes=100))) as call:
        refused = await call("acme", body=b"x" * 101)
        assert (refused.status, await code_of(refused)) == (413, "body_too_large")
        assert call.server.seen == []
        zipped = await call("acme", body=b"x", **{"Content-Encoding": "gzip"})
        assert (zipped.status, await code_of(zipped)) == (415, "unsupported_media_type")


async def test_gateways_that_share_a_redis_count_together_and_alone_while_it_is_away(tmp_path: Path) -> None:
    quota = Quota("images", 10, "day")
    with running_redis(tmp_path) as (url, process):
        policy = LimitPolicy(redis_url=url, redis_pause_s=0.0, redis_timeout_s=5.0)
        one, other = Quotas(policy), Quotas(policy)
        for period in ("second", "minute", "day"):
            shared = Quota("bytes", 1_000, period)
            assert (await one.take(shared, "acme", 600)).taken
            if period != "second":  # which may be another one by now
                refused = await other.take(shared, "acme", 600)
                assert (refused.taken, refused.remaining) == (False, 400)
                assert 0 < refused.reset_s <= shared.window_s
        await one.add(quota, "acme", 10)
        assert not (await other.look(quota, "acme")).taken
        assert (await other.look(quota, "beta")).taken
        process.kill()
        process.wait(10)
        assert (await other.look(quota, "acme")).taken
        assert (await other.take(quota, "acme", 10)).taken
        assert not (await other.look(quota, "acme")).taken
        await one.close()
        await other.close()


def test_a_redis_url_that_is_none_is_one_clear_error() -> None:
    with pytest.raises(ConfigurationError, match=r"limits\.redis_url"):
        Quotas(LimitPolicy(redis_url="http://nowhere"))


async def test_what_nobody_is_named_for_is_counted_by_address() -> None:
    limits = LimitPolicy(every_tenant=replace(FREE, bytes_per_day=10))
    async with calling(parts(limits)) as call:
        assert (await call("acme", "PUT", "/v1/uploads/t", b"x" * 10)).status == 201
        assert (await call("other", "PUT", "/v1/uploads/t", b"x" * 10)).status == 429
        assert (await call("acme", body=b"x" * 10)).status == 202
