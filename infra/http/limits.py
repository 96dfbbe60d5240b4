"""How much each tenant may ask for, and when nobody may ask for more."""

import math
import random
from collections.abc import Iterator
from typing import Protocol

from aiohttp import web

from infra.http.policies import Allowance, LimitPolicy
from infra.http.quotas import Quota, Quotas, Standing
from infra.http.requests import Handler, edge_of, route_of
from schemas.identity import IMAGES_KEY, REQUEST_KEY, Principal
from schemas.problems import ProblemError
from schemas.records import Lane

_IMAGES = "/v1/images"
_STREAMS = frozenset({"/v1/stream", "/v1/events"})


class Backlog(Protocol):
    """Who knows how much waits for the workers."""

    def lag(self, lane: Lane) -> int | None:
        """Records of a lane that nobody has taken yet; None while that is unknown. Answers from memory, at once."""


class Limits:
    """A middleware: refuses before a body is read. Counts by tenant, and by address those whom no credential names."""

    def __init__(self, policy: LimitPolicy, quotas: Quotas, backlog: Backlog | None = None) -> None:
        self._policy, self._quotas, self._backlog = policy, quotas, backlog
        self._in_flight: dict[str, int] = {}
        self._all_in_flight = 0

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Charge the caller and go on. Raises ProblemError 413, 415, 429 or 503."""
        route = route_of(request)
        if not route.startswith("/v1/"):
            return await handler(request)
        _check_body(request, self._policy.body_bytes)
        submits = route == _IMAGES and request.method == "POST"
        if submits:
            self._shed(request)
        payer = _payer(request)
        allowance = self._policy.of(payer)
        counted = route not in _STREAMS  # which have limits of their own, and last
        if counted:
            self._enter(payer, allowance)
        try:
            await self._charge(request, payer, allowance, submits=submits)
            response = await handler(request)
            if submits and allowance.images_per_day is not None and response.status < 400:
                await self._charge_for_images(request, payer, allowance.images_per_day)
            return response
        finally:
            if counted:
                self._leave(payer)
            if request.content_length is None and request.body_exists:
                await self._charge_for_chunks(request, payer, allowance)

    def _shed(self, request: web.Request) -> None:
        """Refuse images while too many wait: whoever comes back later is served sooner than who queues now."""
        lane = Lane.BULK if request.query.get("lane") == Lane.BULK else Lane.ONLINE
        most = self._policy.max_lag_online if lane is Lane.ONLINE else self._policy.max_lag_bulk
        waiting = self._backlog.lag(lane) if self._backlog is not None and most else None
        if waiting is not None and waiting > most:
            raise _overloaded(self._policy.retry_s)

    def _enter(self, payer: str, allowance: Allowance) -> None:
        if self._all_in_flight >= self._policy.in_flight:
            raise _overloaded(1.0)
        if allowance.in_flight is not None and self._in_flight.get(payer, 0) >= allowance.in_flight:
            raise ProblemError(429, "too_many_in_flight", "too many requests at once", 1)
        self._in_flight[payer] = self._in_flight.get(payer, 0) + 1
        self._all_in_flight += 1

    def _leave(self, payer: str) -> None:
        self._all_in_flight -= 1
        self._in_flight[payer] -= 1
        if not self._in_flight[payer]:
            del self._in_flight[payer]

    async def _charge(self, request: web.Request, payer: str, allowance: Allowance, *, submits: bool) -> None:
        if allowance.requests_per_s is not None:
            standing = await self._quotas.take(Quota("requests", allowance.requests_per_s, "second"), payer)
            edge_of(request).headers.update(_headers(standing))
            if not standing.taken:
                raise _exceeded("rate_limited", "too many requests; come again later", standing)
        if request.body_exists:
            for quota, code in _quotas_of_bytes(allowance):
                self._demand(request, await self._quotas.take(quota, payer, request.content_length or 1), code)
        if submits and allowance.images_per_day is not None:
            quota = Quota("images", allowance.images_per_day, "day")
            self._demand(request, await self._quotas.look(quota, payer), "quota_exceeded")

    @staticmethod
    def _demand(request: web.Request, standing: Standing, code: str) -> None:
        if not standing.taken:
            edge_of(request).headers.update(_headers(standing))
            quota = standing.quota
            raise _exceeded(code, f"the {quota.period}'s quota of {quota.what} is used up", standing)

    async def _charge_for_chunks(self, request: web.Request, payer: str, allowance: Allowance) -> None:
        """A body that did not say how long it is: it is known now."""
        for quota, _ in _quotas_of_bytes(allowance):
            await self._quotas.add(quota, payer, request.content.total_bytes)

    async def _charge_for_images(self, request: web.Request, payer: str, amount: int) -> None:
        """How many there are is known once they were read: the last request of a day may go beyond its quota."""
        count = request.get(IMAGES_KEY, 1)
        if isinstance(count, int) and count > 0:
            await self._quotas.add(Quota("images", amount, "day"), payer, count)


def _quotas_of_bytes(allowance: Allowance) -> Iterator[tuple[Quota, str]]:
    """With the code of a refusal."""
    if allowance.bytes_per_minute is not None:
        yield Quota("bytes", allowance.bytes_per_minute, "minute"), "rate_limited"
    if allowance.bytes_per_day is not None:
        yield Quota("bytes", allowance.bytes_per_day, "day"), "quota_exceeded"


def _payer(request: web.Request) -> str:
    principal = request.get(REQUEST_KEY)
    # No tenant's name holds a colon.
    return principal.tenant if isinstance(principal, Principal) else f"address:{request.remote}"


def _check_body(request: web.Request, most: int) -> None:
    if request.content_length is not None and request.content_length > most:
        raise ProblemError(413, "body_too_large", f"the body is over {most:,} bytes")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ProblemError(415, "unsupported_media_type", "send the body as it is, without Content-Encoding")


def _headers(standing: Standing) -> dict[str, str]:
    """Of draft-ietf-httpapi-ratelimit-headers, in the form that clients know."""
    quota = standing.quota
    return {
        "RateLimit-Limit": str(quota.amount),
        "RateLimit-Remaining": str(standing.remaining),
        "RateLimit-Reset": str(math.ceil(standing.reset_s)),
        "RateLimit-Policy": f"{quota.amount};w={quota.window_s}",
    }


def _exceeded(code: str, detail: str, standing: Standing) -> ProblemError:
    return ProblemError(429, code, detail, max(1.0, standing.reset_s))


def _overloaded(retry_s: float) -> ProblemError:
    # Spread, so that those who were sent away together do not come back together.
    return ProblemError(503, "overloaded", "too much is waiting; come again later", retry_s * random.uniform(1, 2))  # noqa: S311
