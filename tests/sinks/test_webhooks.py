"""Webhooks to real receivers on loopback, from a real database."""

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from schemas.errors import BusyError, ConfigurationError, Reason
from schemas.identity import Principal, Scope
from sinks.deliveries import Attempt, ClaimedDelivery, DeliveryState, receiver_of
from sinks.webhook_policy import WebhookPolicy
from sinks.webhook_routes import add_routes
from sinks.webhook_sender import Sender
from sinks.webhook_signature import message_id, secret_of, signed_headers
from sinks.webhooks import Webhooks, retry_delay_s
from tests.support.subscribers import knowing
from tests.support.webhooks import MASTER, NOON, Desk, Receiver, policy_for, receiving, running, verified


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def test_signatures_are_those_of_standard_webhooks() -> None:
    body = b'{"test": 2432232314}'
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_each_tenant_has_a_secret_of_its_own() -> None:
    assert len({secret_of(MASTER, "a"), secret_of(MASTER, "b"), secret_of(f"{MASTER}!", "a")}) == 3
    assert message_id("a", "b") == message_id("a", "b") != message_id("b", "b")


def test_without_a_secret_nothing_is_sent_and_a_short_one_is_refused(desk: Desk) -> None:
    with pytest.raises(ConfigurationError, match=r"webhooks\.secret"):
        Webhooks(WebhookPolicy(), desk.queue, desk.store)
    with pytest.raises(ValueError, match="at least 24"):
        WebhookPolicy(secret="short")


async def test_a_batch_that_is_done_is_told_once_and_signed(desk: Desk) -> None:
    async with receiving() as receiver:
        desk.add("b1", receiver.url)
        async with running(desk.webhooks(policy_for(receiver))):
            (delivery,) = await desk.until(lambda found: found[0].state is DeliveryState.DELIVERED)
            await asyncio.sleep(0.05)
    (heard,) = receiver.heard
    assert verified(heard.headers, heard.body, secret_of(MASTER, "a"))
    assert not verified(heard.headers, heard.body, secret_of(MASTER, "b"))
    assert heard.headers["webhook-id"] == message_id("a", "b1")
    assert heard.headers["webhook-timestamp"] == str(int(NOON.timestamp()))
    assert heard.headers["content-type"] == "application/json"
    said = json.loads(heard.body)
    assert (said["type"], said["timestamp"]) == ("batch.completed", "2026-01-02T12:00:00.000Z")
    assert (said["data"]["id"], said["data"]["status"], said["data"]["images"]) == ("b1", "completed", 0)
    assert [(attempt.status, attempt.error) for attempt in delivery.attempts] == [(204, None)]


async def test_while_secrets_change_both_sign(desk: Desk) -> None:
    async with receiving() as receiver:
        desk.add("b1", receiver.url)
        policy = policy_for(receiver, secret="the new secret, long enough", former_secret=MASTER)
        async with running(desk.webhooks(policy)):
            await desk.until(lambda found: found[0].state is DeliveryState.DELIVERED)
    (heard,) = receiver.heard
    for master in (MASTER, "the new secret, long enough"):
        assert verified(heard.headers, heard.body, secret_of(master, "a"))


async def test_what_is_not_accepted_is_tried_again_later_and_later_under_the_same_id(desk: Desk) -> None:
    answers = [
        web.Response(status=500, text="x" * 100_000),
        web.Response(status=429, headers={"Retry-After": "3600"}),
        web.Response(status=404),
    ]
    async with receiving(answers=answers) as receiver:
        desk.add("b1", receiver.url)
        due = []
        async with running(desk.webhooks(policy_for(receiver, first_retry_s=10, growth=4))):
            for number in (1, 2, 3):
                found = await desk.until(lambda found, number=number: len(found[0].attempts) == number)  # type: ignore[misc]
                assert found[0].next_attempt_at is not None
                due.append((found[0].next_attempt_at - desk.at).total_seconds())
                desk.at = found[0].next_attempt_at
            (delivery,) = await desk.until(lambda found: found[0].state is DeliveryState.DELIVERED)
    assert due == [10, 3600, 160]
    assert len({heard.headers["webhook-id"] for heard in receiver.heard}) == 1
    assert [attempt.error for attempt in delivery.attempts] == ["refused", "refused", "refused", None]
    assert all(verified(heard.headers, heard.body, secret_of(MASTER, "a")) for heard in receiver.heard)


async def test_in_the_end_it_is_given_up(desk: Desk) -> None:
    async with receiving(answers=[web.Response(status=500) for _ in range(9)]) as receiver:
        desk.add("b1", receiver.url)
        async with running(desk.webhooks(policy_for(receiver, attempts=3))):
            for number in (1, 2, 3):
                await desk.until(lambda found, number=number: len(found[0].attempts) == number)  # type: ignore[misc]
                desk.later(hours=1)
            (delivery,) = await desk.until(lambda found: found[0].state is DeliveryState.FAILED)
    assert (len(receiver.heard), delivery.next_attempt_at) == (3, None)


@pytest.mark.parametrize(
    ("answer", "error", "state"),
    [
        (lambda: web.Response(status=410), "gone", DeliveryState.FAILED),
        (lambda: web.Response(status=302, headers={"Location": "/elsewhere"}), "redirected", DeliveryState.PENDING),
        (
            lambda: web.Response(status=307, headers={"Location": "http://169.254.169.254/"}),
            "redirected",
            DeliveryState.PENDING,
        ),
    ],
)
async def test_what_is_not_followed_and_what_ends_it(desk: Desk, answer: Any, error: str, state: DeliveryState) -> None:
    async with receiving(answers=[answer()]) as receiver:
        desk.add("b1", receiver.url)
        async with running(desk.webhooks(policy_for(receiver))):
            (delivery,) = await desk.until(lambda found: bool(found[0].attempts))
    assert (delivery.attempts[0].error, delivery.state) == (error, state)
    assert [heard.path for heard in receiver.heard] == ["/hook"]


async def test_a_receiver_that_hangs_holds_its_own_places_alone(desk: Desk) -> None:
    async with receiving(hangs=True) as hanging, receiving() as good:
        for number in range(20):
            desk.add(f"h{number}", hanging.url)
        desk.later(seconds=1)
        for number in range(10):
            desk.add(f"g{number}", good.url)
        policy = policy_for(hanging, good, in_flight=8, per_tenant=8, per_receiver=2, timeout_s=1.5)
        async with running(desk.webhooks(policy)):
            await desk.until(lambda found: sum(each.state is DeliveryState.DELIVERED for each in found) == 10)
            assert hanging.at_once == 2
        found = await desk.deliveries()
    assert {attempt.error for each in found for attempt in each.attempts} == {None, "timeout"}


async def test_a_tenant_whose_receivers_all_hang_leaves_room_for_others(desk: Desk) -> None:
    async with receiving(hangs=True) as first, receiving(hangs=True) as second, receiving() as good:
        for number in range(6):
            desk.add(f"h{number}", (first, second)[number % 2].url)
        desk.add("g", good.url, tenant="b")
        policy = policy_for(first, second, good, in_flight=4, per_tenant=3, per_receiver=2, timeout_s=1.5)
        async with running(desk.webhooks(policy)):
            await desk.until(lambda found: found[0].state is DeliveryState.DELIVERED, tenant="b")
            assert first.at_once + second.at_once <= 3


class Forgetful:
    """A queue whose database is away when an attempt is to be written down."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self.lost = desk, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._desk.queue, name)

    async def settle(self, claimed: ClaimedDelivery, attempt: Attempt, next_attempt_at: datetime | None) -> bool:
        if self.lost:
            return await self._desk.queue.settle(claimed, attempt, next_attempt_at)
        self.lost += 1
        self._desk.at = claimed.claimed_until + timedelta(seconds=1)
        raise BusyError(Reason.STORAGE_UNAVAILABLE, "away")


async def test_what_could_not_be_written_down_is_sent_again_under_the_same_id(desk: Desk) -> None:
    async with receiving() as receiver:
        desk.add("b1", receiver.url)
        async with running(desk.webhooks(policy_for(receiver), queue=Forgetful(desk))):
            await desk.until(lambda found: found[0].state is DeliveryState.DELIVERED)
    assert [heard.headers["webhook-id"] for heard in receiver.heard] == [message_id("a", "b1")] * 2


async def test_several_senders_send_each_once(desk: Desk) -> None:
    async with receiving() as receiver:
        for number in range(30):
            desk.add(f"b{number}", receiver.url)
        policy = policy_for(receiver)
        async with running(*(desk.webhooks(policy) for _ in range(3))):
            await desk.until(lambda found: all(each.state is DeliveryState.DELIVERED for each in found))
    assert sorted(heard.headers["webhook-id"] for heard in receiver.heard) == sorted(
        message_id("a", f"b{number}") for number in range(30)
    )


async def test_what_is_long_over_or_forgotten_is_not_sent(desk: Desk) -> None:
    async with receiving() as receiver:
        desk.add("old", receiver.url)
        desk.later(days=3)
        desk.add("unknown", receiver.url, known=False)
        async with running(desk.webhooks(policy_for(receiver))):
            found = await desk.until(lambda found: all(each.state is DeliveryState.FAILED for each in found))
    assert {each.batch_id: each.attempts[0].error for each in found} == {"old": "too_late", "unknown": "batch_gone"}
    assert receiver.heard == []


async def refusal(url: str, receiver: Receiver, **fields: Any) -> str | None:
    async with Sender(policy_for(receiver, **fields)) as sender:
        return (await sender.post(url, {}, b"{}")).error


async def test_where_a_callback_leads_is_checked_on_the_address() -> None:
    async with receiving() as receiver:
        for host in (
            "127.0.0.1",
            "localhost",
            "0x7f.1",
            "[::ffff:127.0.0.1]",
            "2130706433",
            "127.1",
            "0.0.0.0",
            "[::1]",
        ):
            said = await refusal(f"http://{host}:{receiver.port}/", receiver, extra_networks=())
            assert said in {"callback_forbidden", "unreachable"}, host
        assert await refusal(f"http://localhost:{receiver.port}/", receiver, extra_networks=()) == "callback_forbidden"
        assert receiver.heard == []
        assert await refusal(f"http://127.0.0.1:{receiver.port}/#x", receiver) is None


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/",
        "file:///etc/passwd",
        "http://u:p@127.0.0.1:PORT/",
        "http://127.0.0.1:1/",
        "https:///",
        "x",
        "http://[",
        "",
    ],
)
async def test_what_is_no_callback_is_never_tried(url: str) -> None:
    receiver = Receiver(port=8080)
    async with Sender(policy_for(receiver)) as sender:
        answer = await sender.post(url.replace("PORT", "8080"), {}, b"{}")
    assert (answer.error, answer.final) == ("callback_forbidden", True)
    assert await refusal("http://127.0.0.1:8080/", receiver, insecure=False) == "callback_forbidden"


async def test_a_receiver_that_is_away_is_unreachable() -> None:
    async with receiving() as receiver:
        pass
    assert await refusal(receiver.url, receiver) == "unreachable"
    assert await refusal(f"http://no-such-host.invalid:{receiver.port}/", receiver) == "unreachable"


def test_pauses_grow_up_to_a_bound() -> None:
    policy = WebhookPolicy()
    pauses = [retry_delay_s(policy, attempt) for attempt in range(1, policy.attempts)]
    assert pauses == [10, 40, 160, 640, 2560, 10240, 21600, 21600, 21600]


@pytest.mark.parametrize(
    ("url", "receiver"),
    [
        ("https://Hooks.Example.org/a?b", "hooks.example.org"),
        ("https://u@h.example:8443", "h.example:8443"),
        ("https://h.example?x=/", "h.example"),
        ("nonsense", ""),
    ],
)
def test_whom_a_callback_reaches(url: str, receiver: str) -> None:
    assert receiver_of(url) == receiver


async def test_a_tenant_reads_its_own_log_page_by_page(desk: Desk) -> None:
    async with receiving() as receiver:
        for number in range(3):
            desk.later(seconds=1)
            desk.add(f"b{number}", receiver.url)
        desk.add("foreign", receiver.url, tenant="b")
        async with running(desk.webhooks(policy_for(receiver))):
            await desk.until(lambda found: all(each.state is DeliveryState.DELIVERED for each in found))
    app = knowing({"a": Principal(tenant="a", subject="k", scopes=frozenset({Scope.READ}))})
    add_routes(app, desk.queue)
    async with TestServer(app) as server, aiohttp.ClientSession(headers={"Authorization": "Bearer a"}) as session:

        async def ask(query: str) -> tuple[int, dict[str, Any]]:
            async with session.get(server.make_url(f"/v1/webhooks/deliveries{query}")) as answer:
                return answer.status, await answer.json(content_type=None)

        _, first = await ask("?limit=2")
        _, second = await ask(f"?limit=2&cursor={first['next']}")
        shown = [each["batch_id"] for each in first["deliveries"] + second["deliveries"]]
        assert (shown, second["next"]) == (["b2", "b1", "b0"], None)
        assert first["deliveries"][0] == {
            "id": message_id("a", "b2"),
            "batch_id": "b2",
            "url": receiver.url,
            "status": "delivered",
            "attempts": 1,
            "response_status": 204,
            "error": None,
            "created_at": "2026-01-02T12:00:03.000Z",
            "last_attempt_at": "2026-01-02T12:00:03.000Z",
            "next_attempt_at": None,
            "log": first["deliveries"][0]["log"],
        }
        assert [attempt["response_status"] for attempt in first["deliveries"][0]["log"]] == [204]
        assert (await ask("?batch=b1"))[1]["deliveries"] == first["deliveries"][1:]
        assert (await ask("?batch=foreign"))[1] == {"deliveries": [], "next": None}
        for query in ("?limit=0", "?limit=201", "?colour=red", "?cursor=x", "?batch=a&batch=b", "?batch="):
            status, problem = await ask(query)
            assert (status, problem["code"]) == (400, "invalid_query"), query
        session.headers.clear()
        assert (await ask(""))[0] == 401
