"""Who calls, and whether they may do what they ask for. The tenant comes from the verified credential and from nowhere else."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from aiohttp import web

from infra.http.requests import Handler, route_of
from infra.keys import looks_like_key
from schemas.errors import BusyError
from schemas.identity import OPEN, REQUEST_KEY, Principal, Scope
from schemas.problems import ProblemError

# Everything under /v1/ asks for a credential but these: the second carries one in its path.
_FOR_EVERYBODY = frozenset({("GET", "/v1/openapi.json"), ("HEAD", "/v1/openapi.json"), ("PUT", "/v1/uploads/{token}")})
_STREAMS = frozenset({"/v1/stream", "/v1/events"})
_SCOPES = {
    "GET": Scope.READ,
    "HEAD": Scope.READ,
    "POST": Scope.SUBMIT,
    "PUT": Scope.SUBMIT,
    "DELETE": Scope.DELETE,
}
# Whoever may read may listen, and a browser needs a ticket for that.
_SCOPES_OF_ROUTE = {("POST", "/v1/tickets"): Scope.READ}


class Keys(Protocol):
    """Who knows API keys: `infra.key_follower.KeyFollower` has it as `ring`."""

    def verify(self, text: str, now: datetime) -> Principal | None:
        """Whose key this is, or None."""


class TokenVerifier(Protocol):
    """Who knows tokens: `infra.http.tokens.Tokens`."""

    async def verify(self, token: str) -> Principal | None:
        """Whose token this is, or None. Raises BusyError while that cannot be known."""


Redeem = Callable[[str], Awaitable[Principal | None]]
"""Takes a one-time ticket: whose it was, or None for a used, expired or invented one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who can tell whom a credential belongs to; None where such credentials are not taken.

    `keys_age_s`: how old the knowledge of API keys is, None before there was any; `keys_stale_s`: how old it may be.
    """

    keys: Keys | None = None
    keys_age_s: Callable[[], float | None] = lambda: 0.0
    keys_stale_s: float = 600.0
    tokens: TokenVerifier | None = None
    redeem: Redeem | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


class Identity:
    """A middleware that puts the `Principal` into the request. `credentials` None: everybody is `OPEN`."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Find out who it is and go on. Raises ProblemError 401 for nobody known, 403 for a scope that is missing."""
        route = route_of(request)
        if not route.startswith("/v1/"):
            return await handler(request)
        if self._credentials is None:
            request[REQUEST_KEY] = OPEN
            return await handler(request)
        if (request.method, route) in _FOR_EVERYBODY:
            return await handler(request)
        # Known from here on, also to the audit of what it was refused.
        request[REQUEST_KEY] = principal = await self._caller(request, route, self._credentials)
        _check_scope(principal, request.method, route)
        return await handler(request)

    async def _caller(self, request: web.Request, route: str, credentials: Credentials) -> Principal:
        given = request.headers.getall("Authorization", ())
        ticket = request.query.get("ticket") if route in _STREAMS else None
        if ticket is not None and not given and credentials.redeem is not None:
            found = await credentials.redeem(ticket)
        elif len(given) == 1 and given[0][:7].lower() == "bearer ":
            found = await _verified(given[0][7:].strip(), credentials)
        else:
            found = None
        if found is None:
            raise ProblemError(401, "unauthorized", "a valid credential is needed: Authorization: Bearer ...")
        return found


async def _verified(text: str, credentials: Credentials) -> Principal | None:
    if not looks_like_key(text):
        try:
            return None if credentials.tokens is None else await credentials.tokens.verify(text)
        except BusyError as error:
            raise ProblemError(503, "not_ready", "the token's issuer does not answer", error.retry_after_s) from error
    if credentials.keys is None:
        return None
    age_s = credentials.keys_age_s()
    if age_s is None or age_s > credentials.keys_stale_s:
        # Whether the key was revoked meanwhile cannot be known.
        raise ProblemError(503, "not_ready", "API keys cannot be checked now", 1)
    return credentials.keys.verify(text, credentials.now())


def _check_scope(principal: Principal, method: str, route: str) -> None:
    wanted = _SCOPES_OF_ROUTE.get((method, route)) or _SCOPES.get(method, Scope.ADMIN)
    if not principal.may(wanted):
        raise ProblemError(403, "forbidden", f"the scope {wanted} is needed")
