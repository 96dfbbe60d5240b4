"""Webhook deliveries as the store's database keeps them: one per batch with a callback, and a log of its attempts.

The projection makes a delivery in the transaction in which the batch's last image gets its outcome: exactly one per batch, and no
rebuild makes it again. Whoever sends claims first, so that two senders never send the same at once.
"""

from collections.abc import Sequence
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

    `finished_at`: when the batch's last image got its outcome; `claim` proves the claim to `settle`.
    """

    tenant: str
    batch_id: str
    url: str
    attempt: int
    finished_at: datetime
    claimed_until: datetime
    claim: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt. `status` is HTTP's, None where there was no answer; `error` is one line that may be shown to the tenant."""

    at: datetime
    status: int | None = None
    error: str | None = None
    duration_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedAttempt:
    """An attempt in the delivery log: `state` and `next_attempt_at` are what was decided after it."""

    batch_id: str
    url: str
    number: int
    attempt: Attempt
    state: DeliveryState
    next_attempt_at: datetime | None = None


class DeliveryQueue(Protocol):
    """Deliveries to make, and their log. Any call may raise `BusyError` while the database does not answer."""

    async def claim(self, now: datetime, lease_s: float, limit: int = 20) -> Sequence[ClaimedDelivery]:
        """Take deliveries that are due, the longest due first, for `lease_s`; after that somebody else may take them again."""

    async def settle(self, claimed: ClaimedDelivery, attempt: Attempt, next_attempt_at: datetime | None) -> bool:
        """Log an attempt and give the claim back: delivered where it has no `error`, else to be tried at `next_attempt_at`, or failed.

        False (and nothing is logged) where the claim is not this caller's any more.
        """

    async def attempts(
        self, tenant: str, batch_id: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[LoggedAttempt]:
        """The log of a tenant, newest first. Raises InvalidCursorError."""
