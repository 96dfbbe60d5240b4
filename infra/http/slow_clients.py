"""Ends requests whose client hardly sends, and connections whose client takes nothing: aiohttp waits for both as long as they like.

What holds for headers, and for connections without requests, is aiohttp's own timeout: see `runner_options`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import StreamReader, web

from infra.http.metrics import STALLED
from infra.http.policies import LimitPolicy
from infra.http.requests import Handler
from schemas.problems import ProblemError


class BodyRefusedError(ProblemError, TimeoutError):
    """No more of this body is read. A TimeoutError too: aiohttp, which reads the rest of a body before it goes on, expects those."""


@dataclass(slots=True, eq=False)
class _Arrival:
    """Bytes of a body as of the begin of its present window."""

    content: StreamReader
    transport: asyncio.Transport | None
    since: float
    had: int = 0


@dataclass(slots=True)
class _Departure:
    """What a connection had to send, and since when that has not changed."""

    waiting: int
    since: float


class SlowClients:
    """A middleware, and a look at all that is under way once a second (`look`, which `watching` calls)."""

    def __init__(self, policy: LimitPolicy, now: Callable[[], float] = time.monotonic) -> None:
        self._policy, self._now = policy, now
        self._arrivals: set[_Arrival] = set()
        self._departures: dict[asyncio.Transport, _Departure] = {}

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Watch over the request's body and its connection."""
        if request.transport is not None and request.transport not in self._departures:
            self._departures[request.transport] = _Departure(0, self._now())
        if not request.body_exists:
            return await handler(request)
        arrival = _Arrival(request.content, request.transport, self._now())
        self._arrivals.add(arrival)
        try:
            return await handler(request)
        finally:
            self._arrivals.discard(arrival)

    def look(self) -> None:
        """End what is too slow as of now."""
        for arrival in tuple(self._arrivals):
            self._look_at_body(arrival)
        for transport, departure in tuple(self._departures.items()):
            self._look_at_answer(transport, departure)

    def _look_at_body(self, arrival: _Arrival) -> None:
        content, now = arrival.content, self._now()
        if content.is_eof() or content.exception() is not None:
            return
        if content.total_bytes > self._policy.body_bytes:
            most = self._policy.body_bytes
            content.set_exception(BodyRefusedError(413, "body_too_large", f"the body is over {most:,} bytes"))
            return
        # While nothing is read here, because what came before has still to be worked on, the client cannot go on.
        held_back = arrival.transport is None or not arrival.transport.is_reading()
        window_s = now - arrival.since
        if held_back or content.total_bytes - arrival.had >= self._policy.body_bytes_per_s * max(1.0, window_s):
            arrival.since, arrival.had = now, content.total_bytes
        elif window_s > self._policy.body_window_s:
            STALLED.labels("in").inc()
            content.set_exception(BodyRefusedError(408, "request_timeout", "the body did not arrive in time"))

    def _look_at_answer(self, transport: asyncio.Transport, departure: _Departure) -> None:
        if transport.is_closing():
            del self._departures[transport]
            return
        waiting, now = transport.get_write_buffer_size(), self._now()
        if waiting == 0 or waiting != departure.waiting:
            departure.waiting, departure.since = waiting, now
        elif now - departure.since > self._policy.stall_s:
            STALLED.labels("out").inc()
            transport.abort()


def runner_options(policy: LimitPolicy) -> dict[str, Any]:
    """For `aiohttp.web.AppRunner`: how long headers may take and a connection may idle, and how large headers may be."""
    return {
        "keepalive_timeout": policy.idle_s,
        "lingering_time": 5.0,
        "max_line_size": 8_190,
        "max_field_size": 8_190,
        "max_headers": 100,
    }
