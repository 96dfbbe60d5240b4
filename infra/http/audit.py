"""Who did what: one record on the topic `audit` for each request that changes something or was refused. Never holds a request up."""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Literal, Protocol

from aiohttp import web

from infra.http.metrics import AUDIT_DROPPED
from infra.http.requests import REQUEST_ID, Handler, route_of
from schemas.control import AuditEvent
from schemas.identity import REQUEST_KEY, Principal
from schemas.problems import ProblemError
from sinks.admission import TokenBucket

log = logging.getLogger(__name__)

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSED = frozenset({401, 403, 429})
_NOBODY = Principal(tenant="", subject="", scopes=frozenset())
_CLIENT_GONE = 499  # as nginx has it
_STRANGERS_PER_S = 20.0
_PAUSE_S = 0.25
_DRAIN_S = 5.0


class Record(Protocol):
    """Who puts an event on its topic: `infra.http.audit_log`. Called on a thread of its own; may block, may raise."""

    def __call__(self, event: AuditEvent) -> None:
        """Hand the event to Kafka's client."""


class Audit:
    """A middleware, and a buffer between it and Kafka. What does not fit into the buffer is dropped and counted.

    Of callers whom nobody knows only so many a second are recorded: they could fill the topic.
    """

    def __init__(
        self,
        record: Record,
        which: Literal["off", "writes", "all"] = "writes",
        buffer: int = 10_000,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._record, self._which, self._room, self._now = record, which, buffer, now
        self._waiting: deque[AuditEvent] = deque()
        self._strangers = TokenBucket(_STRANGERS_PER_S, 5 * _STRANGERS_PER_S)
        self._executor = ThreadPoolExecutor(1, "audit")

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Go on, and note how it ended."""
        status, location = 500, ""
        try:
            response = await handler(request)
            status, location = response.status, response.headers.get("Location", "")
        except (ProblemError, web.HTTPException) as error:
            status = error.status
            raise
        except asyncio.CancelledError:
            status = _CLIENT_GONE
            raise
        else:
            return response
        finally:
            if self._wanted(request, status):
                self._note(_event(request, status, location, self._now()))

    async def carry(self) -> None:
        """Bring events to Kafka until cancelled, then what is left, within a few seconds."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await asyncio.sleep(_PAUSE_S)
                if self._waiting:
                    await asyncio.shield(loop.run_in_executor(self._executor, self._send))
        finally:
            try:
                await asyncio.wait_for(loop.run_in_executor(self._executor, self._send), _DRAIN_S)
            except TimeoutError:
                AUDIT_DROPPED.labels("shutdown").inc(len(self._waiting))
                self._waiting.clear()
            self._executor.shutdown(wait=False)

    def _wanted(self, request: web.Request, status: int) -> bool:
        if self._which == "off" or not route_of(request).startswith("/v1/"):
            return False
        return self._which == "all" or request.method not in _READS or status in _REFUSED

    def _note(self, event: AuditEvent) -> None:
        if not event.subject and not self._strangers.take():
            AUDIT_DROPPED.labels("strangers").inc()
        elif len(self._waiting) >= self._room:
            AUDIT_DROPPED.labels("full").inc()
        else:
            self._waiting.append(event)

    def _send(self) -> None:
        """On the executor's thread. A deque needs no lock for this."""
        while self._waiting:
            event = self._waiting[0]
            try:
                self._record(event)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others still want to be told
                AUDIT_DROPPED.labels("failed").inc()
                log.warning("an audit event was lost: %s", error, extra={"request_id": event.request_id})
            self._waiting.popleft()


def _event(request: web.Request, status: int, location: str, now: datetime) -> AuditEvent:
    principal = request.get(REQUEST_KEY, _NOBODY)
    return AuditEvent(
        id=os.urandom(16).hex(),
        at=now,
        tenant=principal.tenant,
        subject=principal.subject,
        action=f"{request.method} {route_of(request)}",
        # Never the query nor a token in the path, which may open something.
        target=location or request.match_info.get("id", ""),
        status=status,
        address=request.remote or "",
        request_id=str(request.get(REQUEST_ID, "")),
    )
