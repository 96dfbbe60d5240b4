"""Tickets on a real database, given by one gateway and taken by another."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from schemas.identity import Principal, Scope
from schemas.problems import ProblemError
from sinks.store_engine import open_engine
from sinks.store_policy import StorePolicy
from sinks.store_schema import migrate
from sinks.tickets import Tickets, add_routes
from tests.support.subscribers import knowing

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
CALLER = Principal(tenant="a", subject="k", scopes=frozenset({Scope.ADMIN}), expires_at=NOON + timedelta(hours=1))


class Gateways:
    """Two of them, on one database."""

    def __init__(self, directory: Path) -> None:
        self.at = NOON
        self.policy = StorePolicy(database_url=f"sqlite:///{directory / 'store.db'}")
        self.one, self.other = (Tickets(self.policy, lambda: self.at) for _ in range(2))

    def migrate(self) -> None:
        engine = open_engine(self.policy.database_url, writes=True, timeout_s=10)
        migrate(engine)
        engine.dispose()


@pytest.fixture
def unready(tmp_path: Path) -> Iterator[Gateways]:
    gateways = Gateways(tmp_path)
    yield gateways
    gateways.one.close()
    gateways.other.close()


@pytest.fixture
def gateways(unready: Gateways) -> Gateways:
    unready.migrate()
    return unready


async def test_a_ticket_is_taken_once_by_whichever_gateway_sees_it_first(gateways: Gateways) -> None:
    ticket = await gateways.one.issue(CALLER)
    taken = await asyncio.gather(*(tickets.redeem(ticket.text) for tickets in (gateways.one, gateways.other) * 3))
    (caller,) = [found for found in taken if found is not None]
    assert (caller.tenant, caller.subject, caller.expires_at) == ("a", "k", CALLER.expires_at)
    assert caller.scopes == {Scope.READ}


async def test_a_ticket_lasts_a_minute_and_then_leaves_nothing_behind(gateways: Gateways) -> None:
    ticket = await gateways.one.issue(CALLER)
    gateways.at = ticket.expires_at
    assert ticket.expires_at == NOON + timedelta(minutes=1)
    another = await gateways.one.issue(CALLER)
    assert await gateways.other.redeem(ticket.text) is None
    assert await gateways.other.redeem(another.text) is not None
    for text in ("", "x", "\ud800", "' or 1=1 --"):
        assert await gateways.one.redeem(text) is None


async def test_while_the_database_cannot_be_had_it_is_503(unready: Gateways) -> None:
    with pytest.raises(ProblemError) as refused:
        await unready.one.issue(CALLER)
    assert (refused.value.status, refused.value.code) == (503, "not_ready")


async def test_whoever_may_read_is_given_one(gateways: Gateways) -> None:
    callers = {
        "reader": Principal(tenant="a", subject="k", scopes=frozenset({Scope.READ})),
        "writer": Principal(tenant="a", subject="k", scopes=frozenset({Scope.SUBMIT, Scope.DELETE})),
    }
    app = knowing(callers)
    add_routes(app, gateways.one)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:

        async def ask(token: str) -> tuple[int, dict[str, Any]]:
            headers = {"Authorization": f"Bearer {token}"}
            async with session.post(server.make_url("/v1/tickets"), headers=headers) as answer:
                return answer.status, await answer.json(content_type=None)

        status, given = await ask("reader")
        assert (status, given["expires_at"]) == (201, "2026-01-02T12:01:00.000Z")
        assert await gateways.other.redeem(given["ticket"]) == callers["reader"]
        assert (await ask("writer"))[0] == 403
        assert (await ask("nobody"))[0] == 401
