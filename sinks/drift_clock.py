"""Event time over several partitions that are read at different speeds."""

from collections.abc import Mapping
from typing import Any


class Clock:
    """How far event time has come in each partition, and so in all of them.

    A partition that was read to its end has nothing older to tell, and holds nobody up; one that is still being read does.
    """

    def __init__(self) -> None:
        self._latest_us: dict[int, int] = {}
        self._behind: set[int] = set()

    def follow(self, partition: int) -> None:
        """A partition is being read from now on; nothing is known of it."""
        self._behind.add(partition)

    def saw(self, partition: int, event_us: int) -> None:
        """A record with this event time was read."""
        self._latest_us[partition] = max(self._latest_us.get(partition, event_us), event_us)
        self._behind.add(partition)

    def ended(self, partition: int) -> None:
        """It was read to its end."""
        self._behind.discard(partition)

    @property
    def caught_up(self) -> bool:
        """Whether all partitions were read to their ends."""
        return not self._behind

    @property
    def watermark_us(self) -> int | None:
        """No record before this moment is expected, but for late ones; None while that is not known."""
        if not self._behind:
            return max(self._latest_us.values(), default=None)
        if not self._behind <= self._latest_us.keys():
            return None
        return min(self._latest_us[partition] for partition in self._behind)

    def ahead(self, by_us: int) -> frozenset[int]:
        """Partitions that are so far ahead of those that hold event time up that they should wait: what they bring must be kept open."""
        least = min((self._latest_us.get(partition, 0) for partition in self._behind), default=0)
        return frozenset(p for p, latest in self._latest_us.items() if self._behind and latest > least + by_us)

    def state(self) -> dict[str, Any]:
        """As JSON, for `restore`."""
        return {str(partition): latest for partition, latest in self._latest_us.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._latest_us = {int(partition): int(latest) for partition, latest in state.items()}
