"""Receivers of webhooks on loopback, and deliveries to make."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import insert

from schemas.moments import to_us
from sinks.deliveries import Delivery, receiver_of
from sinks.store import SqlResultStore
from sinks.store_deliveries import SqlDeliveryQueue
from sinks.store_engine import open_engine
from sinks.store_policy import StorePolicy
from sinks.store_schema import migrate
from sinks.store_tables import BATCHES, DELIVERIES
from sinks.webhook_policy import WebhookPolicy
from sinks.webhooks import Webhooks

PATIENT_S = 20.0
MASTER = "a secret of the operator, long enough"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@dataclass(slots=True)
class Heard:
    """A request that a receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Receiver:
    """Answers what `answers` say, in turn, then 204; `hangs`: never."""

    answers: list[web.Response] = field(default_factory=list)
    hangs: bool = False
    heard: list[Heard] = field(default_factory=list)
    at_once: int = 0
    url: str = ""
    port: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.heard.append(Heard(request.path, headers, await request.read()))
        if self.hangs:
            self.at_once += 1
            await asyncio.Event().wait()
        return self.answers.pop(0) if self.answers else web.Response(status=204)


@asynccontextmanager
async def receiving(**fields: Any) -> AsyncIterator[Receiver]:
    """A receiver at `url`, on a port of its own."""
    receiver = Receiver(**fields)
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.handle)
    server = TestServer(app)
    async with server:
        receiver.port = server.port or 0
        receiver.url = f"http://127.0.0.1:{receiver.port}/hook"
        yield receiver


def policy_for(*receivers: Receiver, **fields: Any) -> WebhookPolicy:
    """A policy that lets these receivers be called, and looks often."""
    base: dict[str, Any] = {
        "secret": MASTER,
        "insecure": True,
        "ports": frozenset(receiver.port for receiver in receivers),
        "extra_networks": (ip_network("127.0.0.0/8"),),
        "poll_s": 0.005,
    }
    return WebhookPolicy(**{**base, **fields})


def verified(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """As a receiver does it, from the specification."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return expected in headers["webhook-signature"].split(" ")


class Desk:
    """A store's database with deliveries, and a clock."""

    def __init__(self, directory: Path) -> None:
        self.policy = StorePolicy(database_url=f"sqlite:///{directory / 'store.db'}")
        self._engine = open_engine(self.policy.database_url, writes=True, timeout_s=10)
        migrate(self._engine)
        self.queue = SqlDeliveryQueue(self.policy)
        self.store = SqlResultStore(self.policy, lambda: to_us(self.at))
        self.at = NOON

    def close(self) -> None:
        self.queue.close()
        self.store.close()
        self._engine.dispose()

    def add(self, batch_id: str, url: str, tenant: str = "a", *, known: bool = True) -> None:
        """A batch of no images that is done, and its delivery, due now."""
        moment = to_us(self.at)
        batch = {
            "tenant": tenant,
            "id": batch_id,
            "images": 0,
            "callback": url,
            "created_us": moment,
            "closed_us": moment,
            "attributes": "{}",
        }
        delivery = {
            "tenant": tenant,
            "batch_id": batch_id,
            "url": url,
            "receiver": receiver_of(url),
            "state": "pending",
            "created_us": moment,
            "finished_us": moment,
            "attempts": 0,
            "next_attempt_us": moment,
            "claimed_until_us": 0,
            "claim": "",
        }
        with self._engine.begin() as connection:
            if known:
                connection.execute(insert(BATCHES), batch)
            connection.execute(insert(DELIVERIES), delivery)

    async def deliveries(self, tenant: str = "a") -> tuple[Delivery, ...]:
        return (await self.queue.deliveries(tenant, limit=200)).items

    def webhooks(self, policy: WebhookPolicy, **fields: Any) -> Webhooks:
        """A sender by this desk's clock, without jitter."""
        return Webhooks(
            policy, fields.pop("queue", self.queue), self.store, now=lambda: self.at, draw=lambda: 1.0, **fields
        )

    async def until(self, true: Callable[[tuple[Delivery, ...]], bool], tenant: str = "a") -> tuple[Delivery, ...]:
        """Look at the deliveries until something is true of them."""

        async def look() -> tuple[Delivery, ...]:
            while not true(found := await self.deliveries(tenant)):  # noqa: ASYNC110 - nothing announces a row
                await asyncio.sleep(0.005)
            return found

        return await _patiently(look)

    def later(self, **time: float) -> None:
        """Time passes."""
        self.at += timedelta(**time)


@asynccontextmanager
async def running(*senders: Webhooks) -> AsyncIterator[None]:
    """Senders at work."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(sender.run(stop)) for sender in senders]
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(PATIENT_S):
            await asyncio.gather(*tasks)


async def _patiently(look: Callable[[], Awaitable[tuple[Delivery, ...]]]) -> tuple[Delivery, ...]:
    async with asyncio.timeout(PATIENT_S):
        return await look()
