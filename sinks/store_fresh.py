"""Read your writes: what the store does not know yet is not called unknown before the store has read what the log held by then."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from schemas.errors import BusyError, Reason
from sinks.base import Partition
from sinks.store_base import LogEnds

Found = TypeVar("Found")

_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.01, 0.1


class Progressing(Protocol):
    """What says how far the store is: `ResultStore`."""

    async def caught_up(self, ends: Mapping[Partition, int]) -> bool:
        """Whether every record below these ends is in the store."""


class StoreBehindError(BusyError):
    """The store did not reach the log's end in time, so that nobody can say whether what was asked for exists: 503 `store_behind`."""

    def __init__(self) -> None:
        super().__init__(Reason.STORAGE_UNAVAILABLE, "the result store is behind the log", retry_after_s=1.0)


class FreshReads:
    """Asks again once the store has caught up, for at most `catch_up_s`."""

    def __init__(self, store: Progressing, log: LogEnds, catch_up_s: float) -> None:
        self._store, self._log, self._catch_up_s = store, log, catch_up_s

    async def find(self, read: Callable[[], Awaitable[Found | None]]) -> Found | None:
        """What `read` finds; None only where the store knew all that was in the log when this was called.

        Raises StoreBehindError where that takes too long, BusyError where database or brokers do not answer.
        """
        found = await read()
        if found is not None:
            return found
        behind = not await self.reaches(await self._log.ends())
        found = await read()
        if found is None and behind:
            raise StoreBehindError
        return found

    async def reaches(self, ends: Mapping[Partition, int]) -> bool:
        """Wait until everything below `ends` is in the store; False where `catch_up_s` were not enough."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._catch_up_s, _FIRST_LOOK_S
        while not await self._store.caught_up(ends):
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_LOOK_S)
        return True
