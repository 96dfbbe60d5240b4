"""How much waits for the workers, looked up now and then and answered from memory: what load shedding asks at every request."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from schemas.errors import BusyError
from schemas.records import Lane
from schemas.topics import Topics
from sinks.base import Partition
from sinks.store_base import LogEnds, ResultStore

log = logging.getLogger(__name__)

_LOOK_S = 0.5


class Backlog:
    """The records of each lane that no worker has taken, as they were at most a second ago; unknown while nobody can say."""

    def __init__(self, store: ResultStore, ends: LogEnds, topics: Topics) -> None:
        self._store, self._ends, self._topics = store, ends, topics
        self._lags: dict[Lane, int] = {}

    def lag(self, lane: Lane) -> int | None:
        """Records of a lane that wait, or None."""
        return self._lags.get(lane)

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop` is set."""
        while not stop.is_set():
            try:
                ends, taken = await asyncio.gather(self._ends.ends(), self._store.taken())
                self._lags = {lane: _lag(self._topics.lane(lane), ends, taken) for lane in Lane}
            except BusyError as error:
                log.warning("backlog: %s", error)
                self._lags = {}
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_S)


def _lag(topic: str, ends: Mapping[Partition, int], taken: Mapping[Partition, int]) -> int:
    return sum(max(0, end - taken.get(partition, 0)) for partition, end in ends.items() if partition.topic == topic)
