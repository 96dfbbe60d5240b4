"""Webhook deliveries in the store's database: claimed by one sender at a time, every attempt logged."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, and_, insert, literal, not_, or_, select, true, tuple_, update

from schemas.moments import from_us, to_us
from sinks.deliveries import Attempt, ClaimedDelivery, Delivery, DeliveryState
from sinks.store_base import PAGE_LIMIT, Page
from sinks.store_cursor import decode_cursor, encode_cursor
from sinks.store_engine import open_engine, passing_errors
from sinks.store_policy import StorePolicy
from sinks.store_records import clean, searchable
from sinks.store_tables import ATTEMPTS, DELIVERIES

Answer = TypeVar("Answer")


class SqlDeliveryQueue:
    """A `sinks.deliveries.DeliveryQueue` on the store's database. Close it at the end."""

    def __init__(self, policy: StorePolicy) -> None:
        """Raises ConfigurationError for a URL that is of no supported database; connects later."""
        self._engine = open_engine(policy.database_url, writes=True, timeout_s=policy.timeout_s)
        self._thread = ThreadPoolExecutor(1, "store-deliveries")

    def close(self) -> None:
        """Let connection and thread go."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()

    async def claim(
        self,
        now: datetime,
        lease_s: float,
        busy_tenants: Collection[str] = (),
        busy_receivers: Collection[tuple[str, str]] = (),
    ) -> ClaimedDelivery | None:
        """Take the delivery that is longest due, for `lease_s`."""
        busy = (sorted(busy_tenants), sorted(busy_receivers))
        return await self._write(lambda connection: _claim(connection, to_us(now), round(lease_s * 1e6), busy))

    async def settle(self, claimed: ClaimedDelivery, attempt: Attempt, next_attempt_at: datetime | None) -> bool:
        """Log an attempt and give the claim back; False where it is not this caller's any more."""
        return await self._write(lambda connection: _settle(connection, claimed, attempt, next_attempt_at))

    async def deliveries(
        self, tenant: str, batch_id: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[Delivery]:
        """Deliveries of a tenant, the newest first."""
        limit, place = max(1, min(limit, PAGE_LIMIT)), decode_cursor(cursor, int, str)
        return await self._write(lambda connection: _page(connection, (tenant, batch_id), limit, place))

    async def _write(self, work: Callable[[Connection], Answer]) -> Answer:
        def answer() -> Answer:
            with passing_errors(), self._engine.begin() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._thread, answer)


def _claim(
    connection: Connection, now_us: int, lease_us: int, busy: tuple[list[str], list[tuple[str, str]]]
) -> ClaimedDelivery | None:
    tenants, receivers = busy
    due = (
        select(DELIVERIES.c.tenant, DELIVERIES.c.batch_id)
        .where(
            DELIVERIES.c.state == DeliveryState.PENDING.value,
            DELIVERIES.c.next_attempt_us <= now_us,
            DELIVERIES.c.claimed_until_us <= now_us,
            DELIVERIES.c.tenant.not_in(tenants),
            not_(or_(*(_receives(tenant, receiver) for tenant, receiver in receivers))) if receivers else true(),
        )
        .order_by(DELIVERIES.c.next_attempt_us)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    one = connection.execute(due).one_or_none()
    if one is None:
        return None
    claim, until_us = secrets.token_hex(16), now_us + lease_us
    row = connection.execute(
        update(DELIVERIES)
        .where(*_of(one.tenant, one.batch_id))
        .values(claim=claim, claimed_until_us=until_us)
        .returning(DELIVERIES)
    ).one()
    return ClaimedDelivery(
        tenant=row.tenant,
        batch_id=row.batch_id,
        url=row.url,
        receiver=row.receiver,
        attempt=row.attempts + 1,
        finished_at=from_us(row.finished_us),
        claimed_until=from_us(until_us),
        claim=claim,
    )


def _settle(
    connection: Connection, claimed: ClaimedDelivery, attempt: Attempt, next_attempt_at: datetime | None
) -> bool:
    state = DeliveryState.DELIVERED if attempt.error is None else DeliveryState.FAILED
    if attempt.error is not None and next_attempt_at is not None:
        state = DeliveryState.PENDING
    due_us = to_us(next_attempt_at) if next_attempt_at is not None and state is DeliveryState.PENDING else None
    settled = connection.execute(
        update(DELIVERIES)
        .where(*_of(claimed.tenant, claimed.batch_id), DELIVERIES.c.claim == claimed.claim)
        .values(state=state.value, attempts=claimed.attempt, next_attempt_us=due_us, claimed_until_us=0, claim="")
    )
    if settled.rowcount != 1:
        return False
    logged = asdict(attempt) | {"tenant": claimed.tenant, "batch_id": claimed.batch_id, "number": claimed.attempt}
    logged |= {"at_us": to_us(logged.pop("at")), "error": attempt.error and clean(attempt.error)}
    connection.execute(insert(ATTEMPTS), logged)
    return True


def _page(
    connection: Connection, asked: tuple[str, str | None], limit: int, place: tuple[int | str, ...] | None
) -> Page[Delivery]:
    tenant, batch_id = asked
    order = (DELIVERIES.c.created_us, DELIVERIES.c.batch_id)
    found = select(DELIVERIES).where(DELIVERIES.c.tenant == tenant)
    if batch_id is not None:
        found = found.where(DELIVERIES.c.batch_id == searchable(batch_id))
    if place is not None:
        found = found.where(tuple_(*order) < tuple_(*map(literal, place)))
    rows = connection.execute(found.order_by(*(column.desc() for column in order)).limit(limit + 1)).all()
    shown = rows[:limit]
    attempts = _attempts(connection, tenant, [row.batch_id for row in shown])
    last = encode_cursor(shown[-1].created_us, shown[-1].batch_id) if len(rows) > limit else None
    return Page(tuple(_delivery(row, attempts[row.batch_id]) for row in shown), last)


def _attempts(connection: Connection, tenant: str, batch_ids: Iterable[str]) -> dict[str, list[Attempt]]:
    logged = select(ATTEMPTS).where(ATTEMPTS.c.tenant == tenant, ATTEMPTS.c.batch_id.in_(list(batch_ids)))
    found: dict[str, list[Attempt]] = defaultdict(list)
    for row in connection.execute(logged.order_by(ATTEMPTS.c.number)):
        found[row.batch_id].append(
            Attempt(at=from_us(row.at_us), status=row.status, error=row.error, duration_ms=row.duration_ms)
        )
    return found


def _delivery(row: Any, attempts: Iterable[Attempt]) -> Delivery:
    return Delivery(
        batch_id=row.batch_id,
        url=row.url,
        state=DeliveryState(row.state),
        created_at=from_us(row.created_us),
        next_attempt_at=None if row.next_attempt_us is None else from_us(row.next_attempt_us),
        attempts=tuple(attempts),
    )


def _receives(tenant: str, receiver: str) -> Any:
    return and_(DELIVERIES.c.tenant == tenant, DELIVERIES.c.receiver == receiver)


def _of(tenant: str, batch_id: str) -> Any:
    return DELIVERIES.c.tenant == tenant, DELIVERIES.c.batch_id == batch_id
