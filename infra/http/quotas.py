"""Counts what tenants use over time, with the `limits` library: in memory, or in a Redis that gateways share."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter

from infra.http.metrics import LIMITS_ALONE
from infra.http.policies import LimitPolicy
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)

_NAMESPACE = "sightstream:limits"
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Quota:
    """So many units (`what`: requests, bytes, images) over `period`: `second`, `minute` or `day`."""

    what: str
    amount: int
    period: str

    @property
    def window_s(self) -> int:
        """Its window in seconds."""
        return {"second": 1, "minute": 60, "day": 86_400}[self.period]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant stands with a quota. `reset_s`: until all of it, or of a minute's a part, is there again."""

    quota: Quota
    remaining: int
    reset_s: float


class Quotas:
    """Charges tenants. While the Redis does not answer each gateway counts alone: limits must not cost availability."""

    def __init__(self, policy: LimitPolicy, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._pause_s = now, policy.redis_pause_s
        self._own = _Counter(MemoryStorage())
        self._shared = _Counter(_redis(policy)) if policy.redis_url else None
        self._resumes = float("-inf")

    async def take(self, quota: Quota, tenant: str, units: int = 1) -> bool:
        """Charge so many units if they are there."""
        return await self._ask(lambda counter: counter.take(quota, tenant, units))

    async def used_up(self, quota: Quota, tenant: str) -> bool:
        """Whether not even one unit is left."""
        return await self._ask(lambda counter: counter.used_up(quota, tenant))

    async def add(self, quota: Quota, tenant: str, units: int) -> None:
        """Charge what was already had, whether it was there or not."""
        await self._ask(lambda counter: counter.add(quota, tenant, units))

    async def standing(self, quota: Quota, tenant: str) -> Standing:
        """What is left of it."""
        return await self._ask(lambda counter: counter.standing(quota, tenant))

    async def close(self) -> None:
        """Close the connections."""
        if self._shared is not None:
            await self._shared.close()

    async def _ask(self, question: "Callable[[_Counter], Awaitable[Answer]]") -> Answer:
        if self._shared is not None and self._now() >= self._resumes:
            try:
                return await question(self._shared)
            except Exception as error:  # noqa: BLE001 - the storage maps its client's errors, and not all of them
                LIMITS_ALONE.inc()
                self._resumes = self._now() + self._pause_s
                log.warning("limits are counted alone for %g s: %s", self._pause_s, type(error).__name__)
        return await question(self._own)


class _Counter:
    """Days and seconds by fixed windows, minutes by sliding ones, so that no more than a minute's worth goes in any minute."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._fixed = FixedWindowRateLimiter(storage)
        self._sliding = SlidingWindowCounterRateLimiter(storage)

    async def take(self, quota: Quota, tenant: str, units: int) -> bool:
        limiter, item = self._limiter(quota), _item(quota)
        # A fixed window counts what it refuses too: asked first, so that one request too large does not use up the day.
        if quota.period == "day" and not await limiter.test(item, tenant, cost=units):
            return False
        return await limiter.hit(item, tenant, cost=units)

    async def used_up(self, quota: Quota, tenant: str) -> bool:
        return not await self._limiter(quota).test(_item(quota), tenant)

    async def add(self, quota: Quota, tenant: str, units: int) -> None:
        if quota.period == "minute":
            raise ValueError("a sliding window does not count what it did not let in")
        await self._storage.incr(_item(quota).key_for(tenant), quota.window_s, amount=units)

    async def standing(self, quota: Quota, tenant: str) -> Standing:
        stats = await self._limiter(quota).get_window_stats(_item(quota), tenant)
        return Standing(quota, max(0, stats.remaining), max(0.0, stats.reset_time - time.time()))

    async def close(self) -> None:
        if isinstance(self._storage, RedisStorage):
            bridge: Any = self._storage.bridge
            await bridge.get_connection().aclose()

    def _limiter(self, quota: Quota) -> RateLimiter:
        return self._sliding if quota.period == "minute" else self._fixed


_ITEMS: Mapping[str, type[RateLimitItem]] = {
    "second": RateLimitItemPerSecond,
    "minute": RateLimitItemPerMinute,
    "day": RateLimitItemPerDay,
}


@cache
def _item(quota: Quota) -> RateLimitItem:
    return _ITEMS[quota.period](quota.amount, 1, f"{_NAMESPACE}:{quota.what}")


def _redis(policy: LimitPolicy) -> Storage:
    options: dict[str, Any] = {
        "socket_timeout": policy.redis_timeout_s,
        "socket_connect_timeout": policy.redis_timeout_s,
        "retry": None,
    }
    try:
        return RedisStorage(f"async+{policy.redis_url}", implementation="redispy", **options)
    except Exception as error:  # noqa: BLE001 - the library has several for one thing
        raise ConfigurationError(
            f"limits.redis_url cannot be used: {type(error).__name__}; is the extra [redis] installed?"
        ) from None
