"""The routes with real sockets on loopback."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from schemas.errors import ConfigurationError
from sinks import metrics
from sinks.admission import TokenBucket, check_bind
from sinks.notifier import Hub, NotifierPolicy
from tests.support.subscribers import PATIENT_S, connected, event, quick, serving


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENT_S):
        while not condition():  # noqa: ASYNC110 - nothing announces what is waited for
            await asyncio.sleep(0.005)


def disconnects(code: int) -> float:
    return float(metrics.ws_disconnects.labels(str(code))._value.get())


async def test_a_subscriber_by_query_gets_what_it_asked_for_in_order() -> None:
    hub = Hub(quick())
    async with serving(hub) as server, connected(server, "?key=camera-1&kind=result") as client:
        await client.hear_type("subscribed")
        await hub.publish([event(n, key=f"camera-{n % 2}") for n in range(1000)])
        assert await client.hear_events(500) == list(range(1, 1000, 2))


async def test_a_subscriber_by_message_and_one_that_changes_its_mind() -> None:
    hub = Hub(quick())
    async with serving(hub) as server, connected(server) as client:
        await client.say(type="subscribe", filter={"image": ["i1", "i2"]})
        assert (await client.hear_type("subscribed"))["recovered"] is None
        hub.take([event(n) for n in range(4)])
        assert await client.hear_events(2) == [1, 2]
        await client.say(type="subscribe", filter={"label": "dog", "min_score": 0.5})
        await client.hear(lambda heard: [m["type"] for m in heard].count("subscribed") == 2)
        hub.take([event(5, scores={"dog": 0.4}), event(6, scores={"dog": 0.6, "cat": 0.1})])
        assert await client.hear_events(3) == [1, 2, 6]


async def test_whoever_breaks_off_resumes_by_cursor_without_gap_or_repetition() -> None:
    hub = Hub(quick())
    async with serving(hub) as server:
        async with connected(server, "?tenant=t") as client:
            await client.hear_type("subscribed")
            hub.take([event(n) for n in range(10)])
            first = await client.hear_events(10)
            cursor = client.cursor
        hub.take([event(n) for n in range(10, 20)])
        async with connected(server) as client:
            await client.say(type="subscribe", filter={"tenant": "t"}, since=cursor)
            said = await client.hear_type("subscribed")
            assert (said["recovered"], said["cursor"]) == (True, cursor)
            hub.take([event(20)])
            assert first + await client.hear_events(11) == list(range(21))


async def test_a_cursor_that_is_too_old_is_told_so_and_nothing_is_faked() -> None:
    hub = Hub(quick(history_events=5))
    async with serving(hub) as server:
        cursor = hub.cursor
        hub.take([event(n) for n in range(6)])
        async with connected(server, f"?since={cursor}") as client:
            said = await client.hear_type("subscribed")
            assert (said["recovered"], said["reason"], said["current"]) == (False, "too_old", hub.cursor)
            hub.take([event(7)])
            assert await client.hear_events(1) == [7]


async def test_a_restart_drains_with_1012_and_the_next_epoch_recovers_nothing() -> None:
    first = Hub(quick())
    async with serving(first) as server, connected(server, "?tenant=t") as client:
        await client.hear_type("subscribed")
        first.take([event(1)])
        draining = asyncio.create_task(first.drain())
        assert await client.hear_close() == 1012
        await draining
        assert client.numbers() == [1]
        farewell = client.heard[-1]
        assert farewell["type"] == "reconnect"
        assert farewell["reconnect_after_ms"] >= 0
        async with aiohttp.ClientSession() as session, session.get(server.make_url("/v1/events")) as refused:
            assert refused.status == 503
    async with serving(Hub(quick())) as server, connected(server, f"?since={client.cursor}") as back:
        said = await back.hear_type("subscribed")
        assert (said["recovered"], said["reason"]) == (False, "epoch_changed")


async def test_a_client_that_does_not_read_is_closed_alone_while_the_others_get_everything() -> None:
    hub = Hub(quick(queue_events=1000, queue_bytes=1 << 20, send_timeout_s=1.0))
    before = disconnects(4008)
    async with serving(hub) as server, connected(server, "?tenant=t") as good, connected(server, "?tenant=t") as lazy:
        await good.hear_type("subscribed")
        await lazy.hear_type("subscribed")
        for start in range(0, 12_000, 100):  # 24 MB: more than the sockets of both ends hold
            await hub.publish([event(n, padding=2000) for n in range(start, start + 100)])
            await good.hear_events(start + 100)
        assert good.numbers() == list(range(12_000))
        await until(lambda: hub.connections == 1)
        assert disconnects(4008) == before + 1
        assert hub.connections == 1


async def test_a_slow_client_that_reads_on_finds_the_code_and_resumes() -> None:
    hub = Hub(quick(queue_events=50))
    async with serving(hub) as server:
        async with connected(server, "?tenant=t") as client:
            await client.hear_type("subscribed")
            hub.take([event(n) for n in range(10)])
            await client.hear_events(10)
            hub.take([event(n) for n in range(10, 100)])
            assert await client.hear_close() == 4008
        async with connected(server, f"?tenant=t&since={client.cursor}") as back:
            assert (await back.hear_type("subscribed"))["reason"] == "too_many"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '"subscribe"',
        "[" * 60_000,
        '{"type":"subscribe","filter":[]}',
        '{"type":"subscribe","since":1}',
        '{"type":"subscribe","extra":1}',
        '{"type":"subscribe","filter":{"min_score":1' + "0" * 400 + "}}",
        '{"type":"subscribe","filter":{"\\ud800":"x"}}',
        '{"type":"publish"}',
    ],
)
async def test_what_cannot_be_understood_is_answered_and_changes_nothing(text: str) -> None:
    hub = Hub(quick())
    async with serving(hub) as server, connected(server, "?tenant=t") as client:
        await client.hear_type("subscribed")
        await client.socket.send_str(text)
        assert (await client.hear_type("error"))["code"] == "invalid_message"
        hub.take([event(1)])
        assert await client.hear_events(1) == [1]


async def test_a_message_that_is_too_large_is_1009() -> None:
    async with serving(Hub(quick())) as server, connected(server) as client:
        await client.socket.send_str("x" * 70_000)
        assert await client.hear_close() == 1009


async def test_a_binary_message_is_1003() -> None:
    async with serving(Hub(quick())) as server, connected(server) as client:
        await client.socket.send_bytes(b"x")
        assert await client.hear_close() == 1003


async def test_a_flood_of_messages_is_4029() -> None:
    async with serving(Hub(quick(inbound_per_minute=5))) as server, connected(server) as client:
        for _ in range(6):
            await client.say(type="subscribe")
        assert await client.hear_close() == 4029


async def test_whoever_never_subscribes_is_4001() -> None:
    async with serving(Hub(quick(subscribe_within_s=0.05))) as server, connected(server) as client:
        assert await client.hear_close() == 4001


async def test_a_connection_that_has_lived_long_enough_is_sent_away_politely() -> None:
    async with serving(Hub(quick(lifetime_s=0.05))) as server, connected(server, "?tenant=t") as client:
        assert await client.hear_close() == 1001
        assert client.heard[-1]["type"] == "reconnect"


async def test_a_client_too_many_is_4029_and_its_place_is_free_again_afterwards() -> None:
    hub = Hub(quick(connections_per_address=1))
    async with serving(hub) as server:
        async with connected(server, "?tenant=t") as client:
            await client.hear_type("subscribed")
            async with connected(server, "?tenant=t") as other:
                assert await other.hear_close() == 4029
            async with aiohttp.ClientSession() as session, session.get(server.make_url("/v1/events")) as refused:
                assert (refused.status, (await refused.json())["code"]) == (429, "too_many_connections")
        await until(lambda: hub.connections == 0)
        async with connected(server, "?tenant=t") as client:
            await client.hear_type("subscribed")


async def test_arrivals_at_once_are_limited() -> None:
    async with serving(Hub(quick(connects_per_s=1))) as server, aiohttp.ClientSession() as session:
        async with session.get(server.make_url("/v1/events")) as answer:
            assert answer.status == 200
        async with session.get(server.make_url("/v1/events")) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_nobody_comes_in_before_the_history_is_read() -> None:
    async with serving(Hub(quick()), opened=False) as server, aiohttp.ClientSession() as session:
        for path in ("/v1/events", "/v1/stream"):
            async with session.get(server.make_url(path)) as answer:
                assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, "not_ready")
                assert answer.content_type == "application/problem+json"


async def test_a_query_that_is_wrong_is_a_400() -> None:
    async with serving(Hub(quick())) as server, aiohttp.ClientSession() as session:
        for query in ("?colour=red", "?min_score=x", "?min_score=nan", "?kind=maybe"):
            async with session.get(server.make_url(f"/v1/events{query}")) as answer:
                assert (answer.status, (await answer.json(content_type=None))["code"]) == (400, "invalid_query")


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        (None, None, 200),
        ("https://app.example.com", None, 200),
        ("https://app.example.com.evil.example", None, 403),
        ("https://evil.example", None, 403),
        ("null", None, 403),
        ("http://127.0.0.1:80", "127.0.0.1:80", 200),
        ("http://rebound.example", "rebound.example", 403),
    ],
)
async def test_browser_origins_are_let_in_by_list(origin: str | None, host: str | None, status: int) -> None:
    headers = {name: value for name, value in (("Origin", origin), ("Host", host)) if value is not None}
    hub = Hub(quick(origins=("https://app.example.com",)))
    async with (
        serving(hub) as server,
        aiohttp.ClientSession() as session,
        session.get(server.make_url("/v1/events"), headers=headers) as answer,
    ):
        assert answer.status == status
        if status == 200 and origin:
            assert answer.headers["Access-Control-Allow-Origin"] == origin


async def read_events(answer: aiohttp.ClientResponse, count: int) -> list[dict[str, str]]:
    """Blocks of a stream of server-sent events: field -> value; a comment's field is empty."""
    blocks: list[dict[str, str]] = []
    async with asyncio.timeout(PATIENT_S):
        while len(blocks) < count:
            block: dict[str, str] = {}
            while (line := (await answer.content.readline()).decode()) not in ("\n", ""):
                name, _, value = line.rstrip("\n").partition(":")
                block[name] = value.removeprefix(" ")
            assert block, "the stream ended"
            blocks.append(block)
    return blocks


async def test_server_sent_events_say_the_same_and_resume_by_last_event_id() -> None:
    hub = Hub(quick())
    async with serving(hub) as server, aiohttp.ClientSession() as session:
        url = server.make_url("/v1/events?label=dog&label=cat&min_score=0.5")
        async with session.get(url) as answer:
            assert answer.headers["Sightstream-Start"] == hub.cursor
            hub.take([event(1, scores={"dog": 0.9}), event(2, scores={"cow": 0.9}), event(3, scores={"cat": 0.5})])
            retry, said, *told = await read_events(answer, 4)
            assert retry == {"retry": "3000"}
            assert json.loads(said["data"])["recovered"] is None
            assert [(each["event"], json.loads(each["data"])["n"]) for each in told] == [("result", 1), ("result", 3)]
            middle = told[0]["id"]
            hub.heartbeat()
            (beat,) = await read_events(answer, 1)
            assert beat == {"id": hub.cursor, "": "heartbeat"}
        async with session.get(url, headers={"Last-Event-ID": middle}) as answer:
            assert answer.headers["Sightstream-Start"] == middle
            _, said, told_again = await read_events(answer, 3)
            assert json.loads(said["data"])["recovered"] is True
            assert json.loads(told_again["data"])["n"] == 3
        async with session.get(url, headers={"Last-Event-ID": "elsewhere-1"}) as answer:
            assert answer.headers["Sightstream-Start"] == hub.cursor
            _, said = await read_events(answer, 2)
            assert json.loads(said["data"])["recovered"] is False


async def test_an_event_stream_ends_with_a_reason_when_the_server_goes() -> None:
    hub = Hub(quick())
    async with (
        serving(hub) as server,
        aiohttp.ClientSession() as session,
        session.get(server.make_url("/v1/events")) as answer,
    ):
        await read_events(answer, 2)
        draining = asyncio.create_task(hub.drain())
        farewell, close = await read_events(answer, 2)
        assert farewell["event"] == "reconnect"
        assert json.loads(close["data"]) == {"code": 1012, "reason": "restart"}
        assert await answer.content.read() == b""
        await draining


async def test_an_event_stream_that_is_not_read_is_cut_off() -> None:
    hub = Hub(quick(queue_events=500, send_timeout_s=0.5))
    before = disconnects(4008)
    async with serving(hub) as server, aiohttp.ClientSession(read_bufsize=1024) as session:
        async with session.get(server.make_url("/v1/events")):
            number = 0
            while hub.connections:
                assert number < 100_000, "the client that does not read was never cut off"
                await hub.publish([event(n, padding=4000) for n in range(number, number + 100)])
                number += 100
                await asyncio.sleep(0.001)
        await until(lambda: disconnects(4008) == before + 1)


async def test_a_peer_that_does_not_answer_pings_is_let_go_as_4012() -> None:
    hub = Hub(quick(heartbeat_s=0.1))
    before = disconnects(4012)
    async with serving(hub) as server, connected(server, "?tenant=t", autoping=False) as client:
        async with asyncio.timeout(PATIENT_S):
            while (await client.socket.receive()).type in (WSMsgType.TEXT, WSMsgType.PING):
                pass
        await until(lambda: hub.connections == 0)
        assert disconnects(4012) == before + 1


async def test_leaving_clients_leave_nothing_behind() -> None:
    hub = Hub(quick())
    async with serving(hub) as server:
        for _ in range(20):
            async with connected(server, "?image=i") as client:
                await client.hear_type("subscribed")
        await until(lambda: hub.connections == 0)
    assert hub._filters == {}
    assert hub._busy == set()
    assert hub._audience._scopes == {}


def test_a_token_bucket_lets_bursts_through_and_a_rate_in_the_long_run() -> None:
    at = [0.0]
    bucket = TokenBucket(per_s=2, burst=3, now=lambda: at[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    at[0] = 1.0
    assert [bucket.take() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("host", "fine"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("", False)]
)
def test_without_authentication_only_loopback_is_served(host: str, fine: bool) -> None:
    check_bind("0.0.0.0", public=True)
    if fine:
        check_bind(host, public=False)
    else:
        with pytest.raises(ConfigurationError, match=r"http\.public"):
            check_bind(host, public=False)


def test_the_default_policy_keeps_a_client_within_a_mebibyte() -> None:
    assert NotifierPolicy().queue_bytes == 1 << 20
