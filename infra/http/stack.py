"""Puts the edge around an application: everything that a request passes before its handler, in one order.

Request id and measures -> problems -> origins -> audit -> identity -> limits -> slow clients -> handler. The audit stands before
identity, since who was refused is what an audit is asked about. Headers are put when an answer begins, for streams within the handler.
"""

import asyncio
import contextlib
import time
import warnings
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from infra.http import metrics
from infra.http.audit import Audit
from infra.http.headers import put_headers
from infra.http.identity import Credentials, Identity
from infra.http.limits import Backlog, Limits
from infra.http.origins import Origins
from infra.http.policies import IdentityPolicy, LimitPolicy
from infra.http.problems import problems
from infra.http.quotas import Quotas
from infra.http.requests import Handler, begin, seen_through
from infra.http.slow_clients import SlowClients, runner_options
from infra.server import RUNNER_OPTIONS
from schemas.errors import ConfigurationError
from sinks.admission import is_loopback

Middleware = Any  # aiohttp's own type wants functions; objects that are called do as well

_LOOK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeParts:
    """Whom the edge asks. `credentials` None: open mode. `backlog` None: no shedding. `audit` None: nothing is recorded."""

    identity: IdentityPolicy
    limits: LimitPolicy
    credentials: Credentials | None = None
    backlog: Backlog | None = None
    audit: Audit | None = None


def check_open(identity: IdentityPolicy, host: str) -> None:
    """Refuse to serve everybody beyond this machine. Call before binding. Raises ConfigurationError."""
    if identity.mode == "open" and not is_loopback(host):
        raise ConfigurationError(
            f"identity.mode is open, and {host or 'an empty host'} can be reached by others: set identity.mode to required "
            "(and hand out keys with `sightstream keys create`), or http.host to 127.0.0.1"
        )


def protect(app: web.Application, parts: EdgeParts) -> None:
    """Put all of it around an application that has not started; what it needs in the background comes and goes with the application."""
    # What is kept in requests has names that packages know which do not know aiohttp, so they are plain text.
    warnings.filterwarnings("ignore", category=web.NotAppKeyWarning)
    quotas, slow = Quotas(parts.limits), SlowClients(parts.limits)
    chain: list[Middleware] = [
        _Outermost(parts.identity),
        problems,
        Origins(parts.identity.origins, loopback_only=parts.identity.mode == "open"),
        *([parts.audit] if parts.audit is not None else []),
        Identity(parts.credentials),
        Limits(parts.limits, quotas, parts.backlog),
        slow,
    ]
    app.middlewares.extend(web.middleware(step) for step in chain)
    app.on_response_prepare.append(put_headers)
    app[RUNNER_OPTIONS] = runner_options(parts.limits)

    async def run(_: web.Application) -> AsyncIterator[None]:
        work = [_look(slow), *([parts.audit.carry()] if parts.audit is not None else [])]
        tasks = [asyncio.create_task(part) for part in work]
        yield
        await _end(tasks)
        await quotas.close()

    app.cleanup_ctx.append(run)


class _Outermost:
    """Names and measures requests, and sees through trusted proxies."""

    def __init__(self, identity: IdentityPolicy) -> None:
        self._proxies = identity.trusted_proxies

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        route = begin(request).route or "none"
        began, status = time.perf_counter(), 499
        metrics.IN_FLIGHT.inc()
        try:
            response = await handler(seen_through(request, self._proxies))
            status = response.status
        finally:
            metrics.IN_FLIGHT.dec()
            # A method without a route is whatever a caller likes.
            metrics.REQUESTS.labels("any" if route == "none" else request.method, route, status).inc()
            metrics.DURATION.labels(route).observe(time.perf_counter() - began)
        return response


async def _look(slow: SlowClients) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        slow.look()


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task
