"""Webhook deliveries as the store's database keeps them: one per batch with a callback, with a log of its attempts.

The projection makes a delivery in the transaction in which the batch's last image gets its outcome: exactly one per batch, and no
rebuild makes it again. Whoever sends claims first, so that two senders never send the same at once.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from sinks.store_base import Page


class DeliveryState(StrEnum):
    """`pending`: to be sent at `next_attempt_at`; `delivered`: accepted; `failed`: given up."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDelivery:
    """A delivery that is this caller's until `claimed_until`. `attempt` is the number of the one to make now, from 1.

    `finished_at`: when the batch's last image got its outcome. `receiver`: see `DeliveryQueue.claim`. `claim` proves the claim to `settle`.
    """

    tenant: str
    batch_id: str
    url: str
    receiver: str
    attempt: int
    finished_at: datetime
    claimed_until: datetime
    claim: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt. `status` is HTTP's, None where there was no answer; `error` is a stable code that may be shown to the tenant."""

    at: datetime
    status: int | None = None
    error: str | None = None
    duration_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery and every attempt so far, the first one first. `next_attempt_at` is None once it is delivered or failed."""

    batch_id: str
    url: str
    state: DeliveryState
    created_at: datetime
    next_attempt_at: datetime | None = None
    attempts: tuple[Attempt, ...] = ()


class DeliveryQueue(Protocol):
    """Deliveries to make, and their log. Any call may raise `BusyError` while the database does not answer."""

    async def claim(
        self,
        now: datetime,
        lease_s: float,
        busy_tenants: Collection[str] = (),
        busy_receivers: Collection[tuple[str, str]] = (),
    ) -> ClaimedDelivery | None:
        """Take the delivery that is longest due, for `lease_s`; after that somebody else may take it again.

        None of these tenants and of these (tenant, receiver) is taken: whoever hangs must not keep others waiting. A receiver is
        what `receiver_of` says of the callback; it is a column, filled when the delivery is made.
        """

    async def settle(self, claimed: ClaimedDelivery, attempt: Attempt, next_attempt_at: datetime | None) -> bool:
        """Log an attempt and give the claim back: delivered where it has no `error`, else to be tried at `next_attempt_at`, or failed.

        False (and nothing is logged) where the claim is not this caller's any more.
        """

    async def deliveries(
        self, tenant: str, batch_id: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[Delivery]:
        """Deliveries of a tenant, the newest first. Raises InvalidCursorError."""


def receiver_of(url: str) -> str:
    """Whom a callback would reach: host and port as written, in lower case; at most 255 characters."""
    _, _, rest = url.partition("://")
    authority = rest.partition("/")[0].partition("?")[0].partition("#")[0]
    return authority.rpartition("@")[2].lower()[:255]
