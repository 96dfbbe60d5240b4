"""Results shared among workers by a Redis, which may be slow, down or wiped at any time: then it counts as empty."""

import importlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectors.cache_policy import CachePolicy
from detectors.metrics import CACHE_ERRORS
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)

_PREFIX = b"sightstream:result:"


class RedisStore:
    """Entries under `sightstream:result:`, each for `policy.redis_ttl_s`. Connects when it is first used.

    Raises ConfigurationError where the extra is missing or the URL is none of a Redis; later it raises nothing.
    """

    name = "redis"

    def __init__(self, policy: CachePolicy, now: Callable[[], float] = time.monotonic) -> None:
        redis = _import_redis()
        self._policy = policy
        self._now = now
        self._error: type[Exception] = redis.RedisError
        self._lock = threading.Lock()
        self._resumes = -1.0
        try:
            self._client: Any = redis.Redis.from_url(
                policy.redis_url,
                socket_timeout=policy.redis_timeout_s,
                socket_connect_timeout=policy.redis_timeout_s,
                retry=None,
            )
        except ValueError as error:
            raise ConfigurationError("cache.redis_url is none of redis://, rediss:// or unix://") from error

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, in order, or None; all None while Redis is left alone."""
        values = self._try(lambda: self._client.mget([_PREFIX + key for key in keys]))
        return [None] * len(keys) if values is None else list(values)

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep these, if Redis takes them."""
        self._try(lambda: self._put(values))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _put(self, values: Mapping[bytes, bytes]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(_PREFIX + key, value, px=round(self._policy.redis_ttl_s * 1000))
        answers: list[Any] = pipeline.execute()
        return answers

    def _try(self, ask: Callable[[], Any]) -> Any:
        """What Redis answers; None where it does not, and then it is not asked again for a while."""
        if self._now() < self._resumes:
            return None
        try:
            return ask()
        except (self._error, OSError) as error:
            CACHE_ERRORS.inc()
            with self._lock:
                first = self._now() >= self._resumes
                self._resumes = self._now() + self._policy.redis_pause_s
            if first:
                log.warning("the result cache's Redis is left alone for %g s: %s", self._policy.redis_pause_s, error)
            return None


def _import_redis() -> Any:
    try:
        return importlib.import_module("redis")
    except ImportError as error:
        raise ConfigurationError("cache.redis_url needs an extra: pip install 'sightstream[redis]'") from error
