"""Who did what is told, never at the cost of a request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from infra.http.audit import Audit
from infra.http.identity import Credentials
from infra.http.metrics import AUDIT_DROPPED
from infra.http.policies import LimitPolicy
from infra.http.stack import EdgeParts
from infra.key_ring import KeyRing
from infra.keys import make_key
from tests.infra.http.test_identity import NOW
from tests.support.edge import REQUIRED, MemoryAudit, Served, served, until


@asynccontextmanager
async def audited(log: Any, **options: Any) -> AsyncIterator[tuple[Served, dict[str, str]]]:
    ring = KeyRing()
    key = make_key("acme", ["submit", "read"], "", NOW, None)
    ring.fold(key.record)
    parts = EdgeParts(
        identity=REQUIRED, limits=LimitPolicy(), credentials=Credentials(keys=ring), audit=Audit(log, **options)
    )
    async with served(parts) as server:
        yield server, {"Authorization": f"Bearer {key.text}"}


async def _ask(server: Served, method: str, path: str, headers: dict[str, str]) -> int:
    async with aiohttp.ClientSession() as session, session.request(method, f"{server.url}{path}", headers=headers) as a:
        return a.status


async def test_what_changes_something_and_what_was_refused_is_recorded() -> None:
    log = MemoryAudit()
    async with audited(log) as (server, key):
        await _ask(server, "POST", "/v1/images?ticket=secret", key | {"X-Request-Id": "r-1"})
        await _ask(server, "GET", "/v1/images/i1", key)
        await _ask(server, "DELETE", "/v1/images/i2", key)
        await _ask(server, "GET", "/v1/images/i3", {"Authorization": "Bearer secret"})
        await _ask(server, "PUT", "/v1/uploads/secret-token", {})
        await _ask(server, "GET", "/healthz", {})
        await until(lambda: len(log.events) == 4, "all are recorded")
    told = [(e.action, e.target, e.status, e.tenant, e.subject != "") for e in log.events]
    assert told == [
        ("POST /v1/images", "/v1/images/i1", 202, "acme", True),
        ("DELETE /v1/images/{id}", "i2", 403, "acme", True),
        ("GET /v1/images/{id}", "i3", 401, "", False),
        ("PUT /v1/uploads/{token}", "", 201, "", False),
    ]
    assert log.events[0].request_id == "r-1"
    assert log.events[0].address == "127.0.0.1"
    assert "secret" not in str(log.events)


async def test_all_may_be_wanted_or_nothing() -> None:
    for which, count in (("all", 1), ("off", 0)):
        log = MemoryAudit()
        async with audited(log, which=which) as (server, key):
            await _ask(server, "GET", "/v1/images/i1", key)
        assert len(log.events) == count  # what is left is carried when the application ends


async def test_a_log_that_does_not_take_events_holds_no_request_up_and_what_is_lost_is_counted() -> None:
    stuck, entered = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def block(_: object) -> None:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(stuck.wait(), loop).result()

    before = AUDIT_DROPPED.labels("full")._value.get()
    async with audited(block, buffer=3) as (server, key):
        for _ in range(8):
            assert await _ask(server, "POST", "/v1/images", key) == 202
        await asyncio.wait_for(entered.wait(), 30)
        assert AUDIT_DROPPED.labels("full")._value.get() - before == 5
        stuck.set()


async def test_one_event_that_cannot_be_sent_costs_no_other() -> None:
    log = MemoryAudit()
    log.fails = True
    before = AUDIT_DROPPED.labels("failed")._value.get()
    async with audited(log) as (server, key):
        await _ask(server, "POST", "/v1/images", key)
        await until(lambda: AUDIT_DROPPED.labels("failed")._value.get() > before, "it was counted")
        log.fails = False
        await _ask(server, "POST", "/v1/images", key)
        await until(lambda: len(log.events) == 1, "the next is recorded")


@pytest.mark.parametrize("strangers", [150])
async def test_strangers_cannot_fill_the_topic(strangers: int) -> None:
    log = MemoryAudit()
    before = AUDIT_DROPPED.labels("strangers")._value.get()
    async with audited(log) as (server, _), aiohttp.ClientSession() as session:
        for _ in range(strangers):
            async with session.post(f"{server.url}/v1/images") as answer:
                assert answer.status == 401
    assert len(log.events) + AUDIT_DROPPED.labels("strangers")._value.get() - before == strangers
    assert len(log.events) >= 100
