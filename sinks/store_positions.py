"""Where the projection stands in each partition, and what happens where the log is not the one that it was."""

import logging
from collections.abc import Callable, Sequence

from sqlalchemy import ColumnElement, Connection, Engine, delete, insert, select, update

from schemas.errors import Reason, SightstreamError
from sinks.base import Extent, Partition
from sinks.store_engine import writing
from sinks.store_fold import Advance
from sinks.store_images import State
from sinks.store_records import NO_PLACE
from sinks.store_tables import IMAGES, POSITIONS, TAKEN

log = logging.getLogger(__name__)


class SupersededError(SightstreamError):
    """Another writer has taken these partitions further, or the store was cleared: nothing was written. Ask where they are now."""

    def __init__(self, partitions: frozenset[Partition]) -> None:
        super().__init__(f"another writer has {', '.join(f'{p.topic} [{p.index}]' for p in sorted(partitions))}")
        self.partitions = partitions


def advance(connection: Connection, advances: Sequence[Advance]) -> None:
    """Move positions from where they must be, so that of two writers of a partition one fails. Raises SupersededError."""
    superseded = set()
    for step in advances:
        moved = connection.execute(
            update(POSITIONS)
            .where(*_at(step.partition), POSITIONS.c.next_offset == step.before)
            .values(next_offset=step.after, read_us=step.read_us)
        )
        if moved.rowcount != 1:
            superseded.add(step.partition)
    if superseded:
        raise SupersededError(frozenset(superseded))


def open_position(engine: Engine, partition: Partition, extent: Extent, now_us: Callable[[], int]) -> int:
    """The next offset wanted of a partition. Raises BusyError.

    Where the topic was made anew it is read from its start, and what waited in the old one is lost: those images failed. Where retention
    was faster than the store, it goes on at what there is.
    """
    with writing(engine) as connection:
        known = connection.execute(select(POSITIONS).where(*_at(partition))).one_or_none()
        if known is None:
            row = {"topic": partition.topic, "partition": partition.index, "topic_id": extent.topic_id}
            connection.execute(insert(POSITIONS), {**row, "next_offset": extent.earliest, "read_us": 0})
            return extent.earliest
        position = known.next_offset
        if known.topic_id != extent.topic_id:
            position = extent.earliest
            lost = _lose(connection, partition, now_us())
            log.warning(
                "%s [%d] was made anew; %d images waited in the old one", partition.topic, partition.index, lost
            )
        elif not extent.earliest <= position <= extent.latest:
            position = extent.earliest if position < extent.earliest else extent.latest
            why = "records were deleted before they were read" if position == extent.earliest else "its end was lost"
            log.error("%s [%d]: %s; goes on at %d", partition.topic, partition.index, why, position)
        if (position, extent.topic_id) != (known.next_offset, known.topic_id):
            changed = {"next_offset": position, "topic_id": extent.topic_id}
            connection.execute(update(POSITIONS).where(*_at(partition)).values(changed))
        return int(position)


def _lose(connection: Connection, partition: Partition, now_us: int) -> int:
    """Fail the images that were in a partition which is no more; how many. A later result, or submission, counts all the same."""
    connection.execute(delete(TAKEN).where(TAKEN.c.topic == partition.topic, TAKEN.c.partition == partition.index))
    waiting = (
        IMAGES.c.source_topic == partition.topic,
        IMAGES.c.source_partition == partition.index,
        IMAGES.c.state == State.OPEN,
    )
    failure = {
        "state": State.FAILED,
        "source_offset": NO_PLACE,
        "failure_code": Reason.RECORD_LOST.value,
        "failure_message": "the log in which it waited is gone",
        "failure_stage": "store",
        "failure_attempts": 0,
        "failed_us": now_us,
    }
    return connection.execute(update(IMAGES).where(*waiting).values(failure)).rowcount


def _at(partition: Partition) -> tuple[ColumnElement[bool], ...]:
    return POSITIONS.c.topic == partition.topic, POSITIONS.c.partition == partition.index
