"""Nobody hears what belongs to somebody else, and nobody for longer than their credential lasts."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.identity import Principal, Scope
from sinks.access import Access
from sinks.filters import Filter, parse_filter
from sinks.notifier import Hub
from sinks.ring import Cursor, Ring
from tests.support.subscribers import PATIENT_S, Client, event, quick, serving

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def reader(tenant: str, **fields: Any) -> Principal:
    return Principal(tenant=tenant, subject=f"key-of-{tenant}", scopes=frozenset({Scope.READ}), **fields)


CALLERS = {
    "a": reader("a"),
    "b": reader("b"),
    "brief": reader("a", expires_at=NOON + timedelta(minutes=1)),
    "writer": Principal(tenant="a", subject="w", scopes=frozenset({Scope.SUBMIT})),
}


class World:
    """A server that knows `CALLERS`, its time and whose credentials were revoked."""

    def __init__(self, **policy: Any) -> None:
        self.at, self.revoked = NOON, set[str]()
        self.hub = Hub(quick(recheck_s=0.005, **policy))
        self.access = Access(lambda principal: principal.subject not in self.revoked, lambda: self.at)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[TestServer]:
        async with serving(self.hub, self.access, CALLERS) as server:
            yield server


@asynccontextmanager
async def listening(server: TestServer, token: str, query: str = "", **headers: str) -> AsyncIterator[Client]:
    headers["Authorization"] = f"Bearer {token}"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.make_url(f"/v1/stream{query}"), headers=headers) as socket,
    ):
        yield Client(socket)


async def status_of(server: TestServer, path: str, token: str, **headers: str) -> tuple[int, str]:
    headers["Authorization"] = f"Bearer {token}"
    async with aiohttp.ClientSession() as session, session.get(server.make_url(path), headers=headers) as answer:
        if answer.status == 200:
            return 200, ""
        return answer.status, (await answer.json(content_type=None))["code"]


async def test_each_tenant_hears_its_own_events_alone_whatever_it_asks_for() -> None:
    world = World()
    async with (
        world.serving() as server,
        listening(server, "a", "?kind=result") as everything,
        listening(server, "a", "?image=i2&image=i3&image=i4") as by_image,
        listening(server, "a", "?key=camera") as by_key,
        listening(server, "b", "?min_score=0") as other,
    ):
        clients = {everything: [2, 4, 6, 8], by_image: [2, 4], by_key: [2, 4, 6, 8], other: [1, 3, 5, 7]}
        for client in clients:
            await client.hear_type("subscribed")
        world.hub.take([event(n, tenant="ab"[n % 2], key="camera") for n in range(1, 9)])
        for client, numbers in clients.items():
            assert await client.hear_events(len(numbers)) == numbers
        world.hub.tick()
        world.hub.heartbeat()
        for client, numbers in clients.items():
            await client.hear_type("heartbeat")
            assert client.numbers() == numbers


async def test_a_resume_gives_no_more_than_listening_would_have_given() -> None:
    world = World()
    start = world.hub.cursor
    world.hub.take([event(n, tenant="ab"[n % 2]) for n in range(10)])
    async with world.serving() as server, listening(server, "a", f"?since={start}") as client:
        assert (await client.hear_type("subscribed"))["recovered"] is True
        assert await client.hear_events(5) == [0, 2, 4, 6, 8]
        await client.say(type="subscribe", filter={"image": "i3"}, since=start)
        await client.say(type="subscribe", filter={}, since=start)
        assert await client.hear_events(10) == [0, 2, 4, 6, 8] * 2
        headers = {"Authorization": "Bearer b", "Last-Event-ID": start}
        async with (
            aiohttp.ClientSession() as session,
            session.get(server.make_url("/v1/events"), headers=headers) as answer,
            asyncio.timeout(PATIENT_S),
        ):
            lines = [(await answer.content.readline()).decode() for _ in range(2 + 4 * 6)]
    told = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [message["n"] for message in told if message["type"] == "result"] == [1, 3, 5, 7, 9]


async def test_a_filter_that_names_another_tenant_is_refused_as_one_that_names_nobody() -> None:
    world = World()
    async with world.serving() as server, listening(server, "a", "?tenant=a") as client:
        for name in ("b", "nobody"):
            assert await status_of(server, f"/v1/events?tenant={name}", "a") == (400, "invalid_query")
        await client.hear_type("subscribed")
        answers: list[dict[str, Any]] = []
        for name in ("b", "nobody"):
            await client.say(type="subscribe", filter={"tenant": ["a", name]})
            await client.hear(lambda heard: len([m for m in heard if m["type"] == "error"]) > len(answers))
            answers.append({key: value for key, value in client.heard[-1].items() if key != "cursor"})
        assert answers[0] == answers[1]
        world.hub.take([event(1, tenant="b"), event(2, tenant="a")])
        assert await client.hear_events(1) == [2]


async def test_who_may_not_listen_is_not_let_in() -> None:
    world = World()
    async with world.serving() as server:
        for path in ("/v1/events", "/v1/events?ticket=used"):
            assert await status_of(server, path, "nobody") == (401, "unauthorized")
            assert await status_of(server, path, "writer") == (403, "forbidden")
        world.revoked.add(CALLERS["b"].subject)
        assert await status_of(server, "/v1/events", "b") == (401, "unauthorized")
        assert await status_of(server, "/v1/stream", "a") == (426, "upgrade_required")


async def test_a_ticket_in_the_query_is_no_filter() -> None:
    world = World()
    async with world.serving() as server, listening(server, "nobody", "?ticket=a") as client:
        await client.say(type="subscribe")
        await client.hear_type("subscribed")
        world.hub.take([event(1, tenant="a")])
        assert await client.hear_events(1) == [1]


@pytest.mark.parametrize("how", ["expired", "revoked"])
async def test_when_a_credential_ends_its_connections_do_and_no_other(how: str) -> None:
    world = World()
    async with (
        world.serving() as server,
        listening(server, "brief", "?kind=result") as brief,
        listening(server, "b", "?kind=result") as other,
    ):
        for client in (brief, other):
            await client.hear_type("subscribed")
        if how == "expired":
            world.at = NOON + timedelta(minutes=1)
        else:
            world.revoked.add(CALLERS["brief"].subject)
        assert await brief.hear_close() == 1008
        world.hub.take([event(1, tenant="a"), event(2, tenant="b")])
        assert await other.hear_events(1) == [2]
        assert brief.numbers() == []
    assert world.access._watched == {}


async def test_what_waits_is_not_told_once_the_credential_has_ended() -> None:
    world = World()
    outbox = world.hub.join() if world.hub.ready else None
    assert outbox is None
    world.hub.open()
    outbox = world.hub.join()
    world.hub.subscribe(outbox, Filter().within("a"))
    world.access.enter(CALLERS["brief"], outbox)
    world.hub.take([event(1, tenant="a")])
    world.at = NOON + timedelta(hours=1)
    world.access.sweep()
    assert (outbox.empty, outbox.closing and outbox.closing.reason) == (True, "credential expired")


async def test_an_event_stream_says_that_its_credential_ended() -> None:
    world = World()
    headers = {"Authorization": "Bearer brief"}
    async with (
        world.serving() as server,
        aiohttp.ClientSession() as session,
        session.get(server.make_url("/v1/events"), headers=headers) as answer,
        asyncio.timeout(PATIENT_S),
    ):
        world.at = NOON + timedelta(minutes=1)
        text = (await answer.content.read()).decode()
    assert text.endswith('event: close\ndata: {"code":1008,"reason":"credential expired"}\n\n')


async def test_a_tenant_that_has_too_many_connections_takes_no_place_from_others() -> None:
    world = World(connections_per_tenant=1)
    async with world.serving() as server, listening(server, "a", "?kind=result") as first:
        await first.hear_type("subscribed")
        async with listening(server, "a") as second:
            assert await second.hear_close() == 4029
        assert await status_of(server, "/v1/events", "a") == (429, "too_many_connections")
        async with listening(server, "b", "?kind=result") as other:
            await other.hear_type("subscribed")


TENANTS = st.sampled_from(["a", "b", ""])


@settings(deadline=None)
@given(
    st.lists(st.tuples(TENANTS, st.integers(0, 3)), max_size=20),
    st.sampled_from(["a", "b"]),
    st.fixed_dictionaries({}, optional={"image": st.sampled_from(["i0", "i1"]), "key": st.just("k")}),
    st.integers(0, 20),
)
def test_history_and_audience_keep_tenants_apart_even_where_ids_are_the_same(
    published: list[tuple[str, int]], tenant: str, asked: dict[str, str], since: int
) -> None:
    hub = Hub()
    hub.open()
    outbox = hub.join()
    hub.subscribe(outbox, parse_filter(asked).within(tenant))
    ring = Ring(events=100, size_bytes=1 << 20)
    mine: list[int] = []
    seen = set()
    for owner, number in published:
        told = event(number, tenant=owner, key="k")
        hub.take([told])
        ring.take(told)
        if owner == tenant and number not in seen and f"i{number}" == asked.get("image", f"i{number}"):
            mine.append(number)
        if owner == tenant:
            seen.add(number)
    waiting = [json.loads(message.text) for message in outbox._queue]
    assert [message["n"] for message in waiting if message["type"] == "result"] == mine
    replay = ring.since(Cursor(ring.epoch, min(since, ring.cursor.sequence)), Filter(scope=tenant), 100, 1 << 20)
    assert isinstance(replay, list)
    assert len([message for message in replay if message.text]) <= len(seen)
    whole = ring.since(Cursor(ring.epoch, 0), parse_filter(asked).within(tenant), 100, 1 << 20)
    assert isinstance(whole, list)
    assert [json.loads(message.text)["n"] for message in whole] == mine
