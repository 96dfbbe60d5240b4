"""Tells callers that their batches are done: one signed POST each, again and again until somebody says that it was heard."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from schemas.errors import BusyError, ConfigurationError
from sinks import metrics
from sinks.deliveries import Attempt, ClaimedDelivery, DeliveryQueue
from sinks.webhook_message import Batches, message_of
from sinks.webhook_policy import WebhookPolicy
from sinks.webhook_sender import Answer, Sender
from sinks.webhook_signature import message_id, secret_of, signed_headers

log = logging.getLogger(__name__)

_JITTER = (0.8, 1.2)
_LEASE_MARGIN_S = 30.0  # beyond the attempt itself: reading the batch before, settling after
_SETTLE_PAUSE_S = 0.5


class Webhooks:
    """Sends what the queue has. Any number of processes may run it on one database: a delivery is claimed before it is sent.

    At least once: what was sent, but could not be settled before its process died, is sent again, with the same `webhook-id`.
    A receiver that hangs holds `per_receiver` of the process's places for `timeout_s` at a time, and nobody else's.
    """

    def __init__(
        self,
        policy: WebhookPolicy,
        queue: DeliveryQueue,
        batches: Batches,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        draw: Callable[[], float] = lambda: random.uniform(*_JITTER),  # noqa: S311 - jitter
    ) -> None:
        """`draw` gives the factor of jitter. Raises ConfigurationError without `webhooks.secret`."""
        if policy.secret is None:
            raise ConfigurationError("webhooks.secret is not set: nobody could tell these webhooks from forged ones")
        self._masters = [secret for secret in (policy.secret, policy.former_secret) if secret]
        self._policy, self._queue, self._batches = policy, queue, batches
        self._now, self._draw = now, draw
        self._places = _Places(policy)
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._bug: BaseException | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`; attempts that began are finished. Raises whatever is a bug."""
        stopping = asyncio.ensure_future(stop.wait())
        async with Sender(self._policy) as sender:
            try:
                while not stop.is_set() and self._bug is None:
                    self._room.clear()
                    claimed = await self._claim()
                    if claimed is None:
                        await self._pause(stopping)
                    else:
                        self._begin(claimed, sender)
            finally:
                stopping.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._bug is not None:
            raise self._bug

    async def _claim(self) -> ClaimedDelivery | None:
        if len(self._tasks) >= self._policy.in_flight:
            return None
        try:
            return await self._queue.claim(
                self._now(),
                self._policy.timeout_s + _LEASE_MARGIN_S,
                busy_tenants=self._places.busy_tenants(),
                busy_receivers=self._places.busy_receivers(),
            )
        except BusyError as error:
            log.warning("webhooks wait: %s", error)
            return None

    async def _pause(self, stopping: asyncio.Task[bool]) -> None:
        """Until there is room again, or time to look again."""
        room = asyncio.ensure_future(self._room.wait())
        await asyncio.wait({room, stopping}, timeout=self._policy.poll_s, return_when=asyncio.FIRST_COMPLETED)
        room.cancel()

    def _begin(self, claimed: ClaimedDelivery, sender: Sender) -> None:
        self._places.take(claimed)
        task = asyncio.create_task(self._deliver(claimed, sender))
        self._tasks.add(task)
        metrics.webhooks_in_flight.set(len(self._tasks))

        def end(ended: asyncio.Task[None]) -> None:
            self._places.give_back(claimed)
            self._tasks.discard(ended)
            metrics.webhooks_in_flight.set(len(self._tasks))
            if not ended.cancelled():
                self._bug = self._bug or ended.exception()
            self._room.set()

        task.add_done_callback(end)

    async def _deliver(self, claimed: ClaimedDelivery, sender: Sender) -> None:
        at, clock = self._now(), asyncio.get_running_loop().time()
        try:
            answer = await self._attempt(claimed, sender)
        except BusyError as error:
            log.warning("webhooks: not sent, the claim runs out: %s", error)
            return
        except Exception:
            # One batch that cannot be told must not keep all others from being told.
            log.exception("webhooks: a bug", extra={"tenant": claimed.tenant, "batch_id": claimed.batch_id})
            answer = Answer(error="internal_error")
        duration_ms = round((asyncio.get_running_loop().time() - clock) * 1000, 1)
        attempt = Attempt(at=at, status=answer.status, error=answer.error, duration_ms=duration_ms)
        await self._settle(claimed, attempt, self._next(claimed, answer))

    async def _attempt(self, claimed: ClaimedDelivery, sender: Sender) -> Answer:
        late = self._now() - claimed.finished_at > timedelta(seconds=self._policy.begin_within_s)
        if claimed.attempt == 1 and late:
            return Answer(error="too_late", final=True)
        body = await message_of(claimed, self._batches, self._policy.inline_images)
        if body is None:
            return Answer(error="batch_gone", final=True)
        secrets = [secret_of(master, claimed.tenant) for master in self._masters]
        name = message_id(claimed.tenant, claimed.batch_id)
        return await sender.post(claimed.url, signed_headers(name, int(self._now().timestamp()), body, secrets), body)

    def _next(self, claimed: ClaimedDelivery, answer: Answer) -> datetime | None:
        metrics.webhook_attempts.labels(answer.error or "delivered").inc()
        if answer.error is None:
            return None
        if answer.final or claimed.attempt >= self._policy.attempts:
            metrics.webhooks_given_up.inc()
            return None
        pause_s = max(retry_delay_s(self._policy, claimed.attempt) * self._draw(), answer.retry_after_s)
        return self._now() + timedelta(seconds=pause_s)

    async def _settle(self, claimed: ClaimedDelivery, attempt: Attempt, next_at: datetime | None) -> None:
        """Write down what happened, as long as the claim lasts: until then a database that is away costs no second delivery."""
        while True:
            try:
                mine = await self._queue.settle(claimed, attempt, next_at)
            except BusyError as error:
                if self._now() >= claimed.claimed_until:
                    log.warning("webhooks: an attempt could not be written down, and will be made again: %s", error)
                    return
                await asyncio.sleep(_SETTLE_PAUSE_S)
            else:
                if not mine:
                    log.warning(
                        "webhooks: a delivery was claimed again meanwhile", extra={"batch_id": claimed.batch_id}
                    )
                return


def retry_delay_s(policy: WebhookPolicy, attempt: int) -> float:
    """How long to wait after attempt number `attempt` (from 1) failed, before jitter."""
    return min(policy.longest_retry_s, policy.first_retry_s * policy.growth ** (attempt - 1))


class _Places:
    """How many attempts run at once for each tenant and each of its receivers."""

    def __init__(self, policy: WebhookPolicy) -> None:
        self._policy = policy
        self._tenants: Counter[str] = Counter()
        self._receivers: Counter[tuple[str, str]] = Counter()

    def take(self, claimed: ClaimedDelivery) -> None:
        self._tenants[claimed.tenant] += 1
        self._receivers[claimed.tenant, claimed.receiver] += 1

    def give_back(self, claimed: ClaimedDelivery) -> None:
        self._tenants -= Counter([claimed.tenant])  # which forgets those at 0
        self._receivers -= Counter([(claimed.tenant, claimed.receiver)])

    def busy_tenants(self) -> list[str]:
        return [name for name, count in self._tenants.items() if count >= self._policy.per_tenant]

    def busy_receivers(self) -> list[tuple[str, str]]:
        return [name for name, count in self._receivers.items() if count >= self._policy.per_receiver]
