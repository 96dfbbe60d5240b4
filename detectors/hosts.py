"""Turns at remote hosts: a slow or dead one must not take the transfers away from the others."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from detectors.policy import ImagePolicy
from schemas.errors import BusyError, Reason

# Hosts remembered although nobody is fetching from them; beyond it the memory of failures is dropped.
_MAX_IDLE_HOSTS = 4096


@dataclass(slots=True)
class _Host:
    turns: asyncio.Semaphore
    users: int = 0
    failures: int = 0
    resumes_at: float = 0.0


class Hosts:
    """Bounds transfers in all and per host, and leaves a host alone for a while after several failures in a row."""

    def __init__(self, policy: ImagePolicy, now: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._now = now
        self._transfers = asyncio.Semaphore(policy.remote_concurrency)
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Hold one transfer to a host; a BusyError within counts as the host's failure, anything else as its health.

        Raises BusyError at once while the host is being left alone. Waits for the host's turn first and for one of all
        transfers then, so that those who queue at one host hold nothing that others need.
        """
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(asyncio.Semaphore(self._policy.per_host))
        host.users += 1
        try:
            async with host.turns:
                self._refuse_while_paused(host)
                async with self._transfers:
                    try:
                        yield
                    except BusyError:
                        self._count_failure(host)
                        raise
                    host.failures = 0
        finally:
            host.users -= 1
            self._forget(name, host)

    def _refuse_while_paused(self, host: _Host) -> None:
        left = host.resumes_at - self._now()
        if left > 0:
            raise BusyError(Reason.FETCH_FAILED, "the host failed repeatedly and is left alone for a while", left)

    def _count_failure(self, host: _Host) -> None:
        host.failures += 1
        if host.failures >= self._policy.host_failures:
            host.resumes_at = self._now() + self._policy.host_pause_s

    def _forget(self, name: str, host: _Host) -> None:
        if host.users == 0 and host.failures == 0:
            del self._hosts[name]
        elif len(self._hosts) > _MAX_IDLE_HOSTS:
            self._hosts = {name: host for name, host in self._hosts.items() if host.users}
