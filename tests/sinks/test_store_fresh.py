"""Reading what one wrote: nothing is called unknown before the store has what the log held."""

import asyncio
from collections.abc import Mapping

import pytest

from schemas.errors import BusyError, Reason
from sinks.base import Partition
from sinks.store_fresh import FreshReads, StoreBehindError

PLACE = Partition("images.online", 0)


class Log:
    asked = 0

    async def ends(self) -> Mapping[Partition, int]:
        self.asked += 1
        return {PLACE: 5}


class Store:
    """Catches up after so many looks."""

    def __init__(self, looks: int, holds: str | None = "image") -> None:
        self.looks, self.holds = looks, holds

    async def caught_up(self, ends: Mapping[Partition, int]) -> bool:
        self.looks -= 1
        return self.looks < 0

    async def read(self) -> str | None:
        return self.holds if self.looks < 0 else None


async def test_what_is_there_is_read_without_a_question() -> None:
    store, log = Store(-1), Log()
    assert await FreshReads(store, log, 10).find(store.read) == "image"
    assert log.asked == 0


async def test_what_is_on_its_way_is_waited_for() -> None:
    store, log = Store(3), Log()
    assert await FreshReads(store, log, 10).find(store.read) == "image"
    assert log.asked == 1


async def test_what_nobody_wrote_is_unknown() -> None:
    store = Store(3, None)
    assert await FreshReads(store, Log(), 10).find(store.read) is None


async def test_a_store_that_stays_behind_says_so_at_once_when_time_is_up() -> None:
    store = Store(1 << 30)
    with pytest.raises(StoreBehindError) as caught:
        async with asyncio.timeout(5):
            await FreshReads(store, Log(), 0.03).find(store.read)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert caught.value.retry_after_s > 0


async def test_what_comes_while_the_store_is_behind_is_found_all_the_same() -> None:
    class Late(Store):
        reads = 0

        async def read(self) -> str | None:
            self.reads += 1
            return "image" if self.reads == 2 else None

    late = Late(1 << 30)
    assert await FreshReads(late, Log(), 0.03).find(late.read) == "image"


async def test_brokers_that_do_not_answer_are_said() -> None:
    class Away(Log):
        async def ends(self) -> Mapping[Partition, int]:
            raise BusyError(Reason.STORAGE_UNAVAILABLE, "away", 1.0)

    store = Store(9)
    with pytest.raises(BusyError, match="away"):
        await FreshReads(store, Away(), 1).find(store.read)
