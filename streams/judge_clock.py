"""Event time as a reader of several partitions knows it: by what it has read, and never by the time of day."""

from collections.abc import Iterable

from sinks.base import Partition


class EventClock:
    """How far event time has come in each partition. `lateness_us`: how much earlier than a record its successors may be.

    A partition in which nothing happens holds nobody up once it has been read to its end.
    """

    def __init__(self, partitions: Iterable[Partition], lateness_us: int) -> None:
        self._newest: dict[Partition, int] = dict.fromkeys(partitions, 0)
        self._at_end: set[Partition] = set()
        self._lateness_us = lateness_us

    @property
    def newest_us(self) -> int:
        """The latest moment that any record tells of, epoch; 0 before there is one."""
        return max(self._newest.values(), default=0)

    def read(self, partition: Partition, at_us: int) -> None:
        """Records of a partition were read, the newest of this moment."""
        self._newest[partition] = max(self._newest[partition], at_us)
        self._at_end.discard(partition)

    def read_to_end(self, partition: Partition) -> None:
        """There is no more in a partition for now."""
        self._at_end.add(partition)

    def has_passed(self, at_us: int) -> bool:
        """Whether what completed before this moment has been read."""
        wanted = at_us + self._lateness_us
        behind = (partition for partition, newest in self._newest.items() if newest < wanted)
        return self.newest_us >= wanted and all(partition in self._at_end for partition in behind)
