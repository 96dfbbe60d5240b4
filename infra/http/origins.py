"""Which web pages may call, and what browsers are told about it (CORS)."""

from collections.abc import Collection
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import web

from infra.http.requests import Handler, edge_of
from schemas.problems import ProblemError
from sinks.admission import is_loopback

_METHODS = "GET, POST, PUT, DELETE"
_HEADERS = "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, X-Request-Id, Accept"
_EXPOSED = (
    "ETag, Idempotency-Replayed, Location, RateLimit-Limit, RateLimit-Policy, RateLimit-Remaining, RateLimit-Reset, "
    "Retry-After, Sightstream-Start, WWW-Authenticate, X-Request-Id"
)
_PREFLIGHT = {
    "Access-Control-Allow-Methods": _METHODS,
    "Access-Control-Allow-Headers": _HEADERS,
    "Access-Control-Max-Age": "600",
}


class Origins:
    """A middleware. What comes without `Origin` is no page of another site, or one that reads nothing and changes nothing.

    Pages of this very server may call, and those of `allowed` (exact match). Credentials travel in a header that no browser adds by itself,
    never in cookies, so that a page elsewhere can do nothing in its visitor's name. `loopback_only`: where nobody is asked who they are,
    the `Host` must mean this machine: a foreign name may be made to resolve here (DNS rebinding).
    """

    def __init__(self, allowed: Collection[str], *, loopback_only: bool) -> None:
        self._allowed = frozenset(allowed)
        self._loopback_only = loopback_only

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse, answer a preflight, or go on."""
        if self._loopback_only and not _is_this_machine(request.host):
            raise ProblemError(403, "origin_forbidden", "this server answers on its own machine's names only")
        origin = request.headers.get("Origin")
        if origin is None:
            return await handler(request)
        edge_of(request).headers["Vary"] = "Origin"
        if not self._lets_in(origin, request):
            raise ProblemError(403, "origin_forbidden", "this origin is not in the list")
        edge_of(request).headers |= {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": _EXPOSED,
        }
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return web.Response(status=HTTPStatus.NO_CONTENT, headers=_PREFLIGHT)
        return await handler(request)

    def _lets_in(self, origin: str, request: web.Request) -> bool:
        return origin in self._allowed or origin in {f"http://{request.host}", f"https://{request.host}"}


@lru_cache(maxsize=256)
def _is_this_machine(host: str) -> bool:
    """Whether a `Host` header, with its port or without (`[::1]:8080`), means loopback."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
