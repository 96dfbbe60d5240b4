"""The public keys of a token issuer: fetched, kept for a while, and looked up by the `kid` that a token names."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import jwt

from infra.http.policies import TokenPolicy
from schemas.errors import BusyError, Reason

log = logging.getLogger(__name__)

_MAX_BYTES = 256 << 10


class Jwks:
    """The keys at the one pinned URL of the policy; what a token says of keys elsewhere (`jku`, `x5u`, `jwk`) nobody reads.

    One fetch at a time, whoever waits for it. Belongs to one event loop.
    """

    def __init__(self, policy: TokenPolicy, now: Callable[[], float] = time.monotonic) -> None:
        self._policy, self._now = policy, now
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = asyncio.Lock()

    async def key(self, kid: str) -> jwt.PyJWK | None:
        """The key of that name, or None where the issuer has none. Raises BusyError while the issuer's keys are not known at all."""
        if self._age_s() > self._policy.refresh_s or kid not in self._keys:
            await self._refresh(kid)
        if self._age_s() > self._policy.stale_s:
            raise BusyError(Reason.FETCH_FAILED, "the issuer's keys cannot be had", self._policy.cooldown_s)
        return self._keys.get(kid)

    def _age_s(self) -> float:
        return self._now() - self._fetched_at

    async def _refresh(self, kid: str) -> None:
        async with self._lock:
            known = kid in self._keys and self._age_s() <= self._policy.refresh_s
            failed = self._tried_at > self._fetched_at
            pause_s = self._policy.timeout_s if failed else self._policy.cooldown_s
            if known or self._now() - self._tried_at < pause_s:
                return
            self._tried_at = self._now()
            try:
                self._keys = await self._fetch()
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, jwt.PyJWTError) as error:
                log.warning("the issuer's keys could not be fetched: %s", type(error).__name__)
            else:
                self._fetched_at = self._now()

    async def _fetch(self) -> dict[str, jwt.PyJWK]:
        timeout = aiohttp.ClientTimeout(total=self._policy.timeout_s)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(self._policy.jwks_url or "", allow_redirects=False, raise_for_status=True) as answer,
        ):
            body = await answer.content.read(_MAX_BYTES + 1)
            while len(body) <= _MAX_BYTES and (more := await answer.content.read(_MAX_BYTES)):
                body += more
        if answer.status != 200 or len(body) > _MAX_BYTES:
            raise ValueError("no JWK set")
        return _usable(json.loads(body), self._policy.algorithms)


def _usable(found: Any, algorithms: tuple[str, ...]) -> dict[str, jwt.PyJWK]:
    """Keys with a name, for signatures, whose one algorithm is allowed: symmetric ones never are."""
    if not isinstance(found, dict):
        raise ValueError("no JWK set")  # noqa: TRY004 - what the caller catches
    keys = jwt.PyJWKSet.from_dict(found)
    return {
        key.key_id: key
        for key in keys
        if key.key_id and key.public_key_use in {None, "sig"} and key.algorithm_name in algorithms
    }
