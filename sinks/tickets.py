"""One-time tickets: a browser, which can send no header with a websocket, shows one in the query instead of a credential."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TypeVar

from aiohttp import web
from sqlalchemy import Connection, delete, insert

from schemas.errors import BusyError
from schemas.identity import REQUEST_KEY, Principal, Scope
from schemas.moments import from_us, to_us
from schemas.problems import ProblemError
from sinks.results_view import time_text
from sinks.store_engine import open_engine, passing_errors
from sinks.store_policy import StorePolicy
from sinks.store_tables import TICKETS

Answer = TypeVar("Answer")

LIFE_S = 60.0
_BYTES = 24


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a caller is given: it opens one stream until `expires_at`."""

    text: str
    expires_at: datetime


class Tickets:
    """Tickets in the store's database, of which it knows digests alone: every gateway takes what any of them gave, and only once.

    A ticket may listen and nothing else, as its caller and for no longer than its caller's credential. Close it at the end.
    """

    def __init__(self, policy: StorePolicy, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Raises ConfigurationError for a URL that is of no supported database; connects later."""
        self._engine = open_engine(policy.database_url, writes=True, timeout_s=policy.timeout_s)
        self._thread = ThreadPoolExecutor(1, "store-tickets")
        self._now = now

    def close(self) -> None:
        """Let connection and thread go."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()

    async def issue(self, principal: Principal) -> Ticket:
        """A ticket for a caller. Raises ProblemError 503 while the database does not answer."""
        now = self._now()
        ticket = Ticket(secrets.token_urlsafe(_BYTES), now + timedelta(seconds=LIFE_S))
        row = {
            "digest": _digest(ticket.text),
            "tenant": principal.tenant,
            "subject": principal.subject,
            "expires_us": to_us(ticket.expires_at),
            "principal_expires_us": None if principal.expires_at is None else to_us(principal.expires_at),
        }

        def work(connection: Connection) -> None:
            connection.execute(delete(TICKETS).where(TICKETS.c.expires_us <= to_us(now)))
            connection.execute(insert(TICKETS), row)

        await self._write(work)
        return ticket

    async def redeem(self, text: str) -> Principal | None:
        """Whose ticket this is; None for a used, expired or invented one. Raises ProblemError 503 while the database does not answer."""
        used = delete(TICKETS).where(TICKETS.c.digest == _digest(text)).returning(TICKETS)
        row = await self._write(lambda connection: connection.execute(used).one_or_none())
        if row is None or from_us(row.expires_us) <= self._now():
            return None
        end_us = row.principal_expires_us
        return Principal(
            tenant=row.tenant,
            subject=row.subject,
            scopes=frozenset({Scope.READ}),
            expires_at=None if end_us is None else from_us(end_us),
        )

    async def _write(self, work: Callable[[Connection], Answer]) -> Answer:
        def answer() -> Answer:
            with passing_errors(), self._engine.begin() as connection:
                return work(connection)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, answer)
        except BusyError as error:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", "tickets cannot be had now", max(1.0, error.retry_after_s)
            ) from error


def add_routes(app: web.Application, tickets: Tickets) -> None:
    """Mount `POST /v1/tickets`. It expects the caller in `request["principal"]`, and a middleware that renders ProblemError."""

    async def issue(request: web.Request) -> web.Response:
        principal = request.get(REQUEST_KEY)
        if not isinstance(principal, Principal):
            raise ProblemError(HTTPStatus.UNAUTHORIZED, "unauthorized", "this needs a valid credential")
        if not principal.may(Scope.READ):  # a ticket may do no more than whoever asks for it
            raise ProblemError(HTTPStatus.FORBIDDEN, "forbidden", "this credential may not read")
        ticket = await tickets.issue(principal)
        return web.json_response(
            {"ticket": ticket.text, "expires_at": time_text(ticket.expires_at)},
            status=HTTPStatus.CREATED,
            headers={"Cache-Control": "no-store"},
        )

    app.router.add_post("/v1/tickets", issue)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
