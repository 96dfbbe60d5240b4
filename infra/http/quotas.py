"""Counts what tenants use over time, by the storages of the `limits` library: this process's memory, or a Redis that gateways share."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import RedisStorage, Storage

from infra.http.metrics import LIMITS_ALONE
from infra.http.policies import LimitPolicy
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)

_NAMESPACE = "sightstream:limits"
_SWEEP_EVERY = 4_096
_ITEMS: Mapping[str, type[RateLimitItem]] = {
    "second": RateLimitItemPerSecond,
    "minute": RateLimitItemPerMinute,
    "day": RateLimitItemPerDay,
}
_WINDOWS_S = {"second": 1, "minute": 60, "day": 86_400}
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Quota:
    """So many units (`what`: requests, bytes, images) in a window of one `period`: `second`, `minute` or `day`.

    A window begins with the first use; at the border of two of them up to twice the amount may go in a short time.
    """

    what: str
    amount: int
    period: str

    @property
    def window_s(self) -> int:
        """Its window in seconds."""
        return _WINDOWS_S[self.period]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant stands with a quota. `taken`: whether what was asked for was there. `reset_s`: until all of it is there again."""

    quota: Quota
    taken: bool
    remaining: int
    reset_s: float


class Quotas:
    """Charges tenants. While the Redis does not answer each gateway counts alone: limits must not cost availability."""

    def __init__(self, policy: LimitPolicy, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._pause_s = now, policy.redis_pause_s
        self._own = OwnStorage()
        self._shared = _redis(policy) if policy.redis_url else None
        self._resumes = float("-inf")

    async def take(self, quota: Quota, tenant: str, units: int = 1) -> Standing:
        """Charge so many units if they are there."""
        return await self._ask(lambda storage: _take(storage, quota, tenant, units))

    async def look(self, quota: Quota, tenant: str) -> Standing:
        """Charge nothing; `taken` says whether a unit is left."""
        return await self._ask(lambda storage: _look(storage, quota, tenant))

    async def add(self, quota: Quota, tenant: str, units: int) -> None:
        """Charge what was already had, whether it was there or not."""
        await self._ask(lambda storage: storage.incr(_key(quota, tenant), quota.window_s, units))

    async def close(self) -> None:
        """Close the connections."""
        if self._shared is not None:
            bridge: Any = self._shared.bridge
            await bridge.get_connection().aclose()

    async def _ask(self, question: Callable[[Storage], Awaitable[Answer]]) -> Answer:
        if self._shared is not None and self._now() >= self._resumes:
            try:
                return await question(self._shared)
            except Exception as error:  # noqa: BLE001 - the storage passes on its client's errors, of several kinds
                LIMITS_ALONE.inc()
                self._resumes = self._now() + self._pause_s
                log.warning("limits are counted alone for %g s: %s", self._pause_s, type(error).__name__)
        return await question(self._own)


class OwnStorage(Storage):
    """Windows in this process. The library's own memory storage makes a task, and looks at every key, for each hit."""

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, tuple[int, float]] = {}
        self._hits = 0

    @property
    def base_exceptions(self) -> type[Exception]:
        """What may be raised: nothing of its own."""
        return ValueError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count; the first in a window begins it."""
        now = time.time()
        count, ends = self._windows.get(key, (0, 0.0))
        count, ends = (count + amount, ends) if ends > now else (amount, now + expiry)
        self._windows[key] = count, ends
        self._hits += 1
        if self._hits % _SWEEP_EVERY == 0:
            self._windows = {name: window for name, window in self._windows.items() if window[1] > now}
        return count

    async def get(self, key: str) -> int:
        """The count of the present window."""
        count, ends = self._windows.get(key, (0, 0.0))
        return count if ends > time.time() else 0

    async def get_expiry(self, key: str) -> float:
        """When the window ends, in seconds since the epoch."""
        return self._windows.get(key, (0, time.time()))[1]

    async def check(self) -> bool:
        """It always works."""
        return True

    async def reset(self) -> int | None:
        """Forget everything."""
        count = len(self._windows)
        self._windows.clear()
        return count

    async def clear(self, key: str) -> None:
        """Forget one key."""
        self._windows.pop(key, None)


async def _take(storage: Storage, quota: Quota, tenant: str, units: int) -> Standing:
    key = _key(quota, tenant)
    # What is refused would be counted too: asked first, so that one request too large does not use up the day.
    if units > 1 and (used := await storage.get(key)) + units > quota.amount:
        return await _standing(storage, quota, key, used, taken=False)
    used = await storage.incr(key, quota.window_s, units)
    return await _standing(storage, quota, key, used, taken=used <= quota.amount)


async def _look(storage: Storage, quota: Quota, tenant: str) -> Standing:
    key = _key(quota, tenant)
    used = await storage.get(key)
    return await _standing(storage, quota, key, used, taken=used < quota.amount)


async def _standing(storage: Storage, quota: Quota, key: str, used: int, *, taken: bool) -> Standing:
    ends = await storage.get_expiry(key)
    return Standing(quota, taken, max(0, quota.amount - used), min(max(0.0, ends - time.time()), quota.window_s))


@lru_cache(maxsize=4096)
def _key(quota: Quota, tenant: str) -> str:
    item = _ITEMS[quota.period](quota.amount, 1, f"{_NAMESPACE}:{quota.what}")
    return item.key_for(tenant)


def _redis(policy: LimitPolicy) -> RedisStorage:
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
