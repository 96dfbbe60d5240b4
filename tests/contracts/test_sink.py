"""What every sink keeps, whatever it writes to; without Kafka, and carried by a delivery."""

from abc import ABC, abstractmethod
from itertools import pairwise
from pathlib import Path

import pytest

from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.records import new_image_id
from schemas.topics import Topics
from sinks.base import Extent, Partition, Progress, RefusedError, Sink
from sinks.parquet import ParquetPolicy, ParquetSink
from tests.support.deliveries import Running, eventually, put
from tests.support.kafka import read_topic
from tests.support.memory_sink import MemorySink, MemoryStore
from tests.support.results import CODEC, is_result, lake_rows, result, run_of

PLACE, OTHER = Partition("detections", 0), Partition("detections", 1)
LOG = Extent("T", 0, 1_000_000)

Rows = list[tuple[str, int, int, str]]


class Storage(ABC):
    """What outlives a sink."""

    @abstractmethod
    def sink(self) -> Sink:
        """Another sink on it."""

    @abstractmethod
    def rows(self) -> Rows:
        """(topic, partition, offset, id) of everything that a reader sees, sorted."""

    def opened(self) -> Sink:
        """Another sink that has taken PLACE over."""
        sink = self.sink()
        sink.open(PLACE, LOG)
        return sink


class Memory(Storage):
    def __init__(self, _: Path) -> None:
        self._store = MemoryStore()

    def sink(self) -> Sink:
        return MemorySink(self._store)

    def rows(self) -> Rows:
        return self._store.rows()


class Parquet(Storage):
    def __init__(self, root: Path) -> None:
        self._root = root

    def sink(self) -> Sink:
        return ParquetSink(ParquetPolicy(directory=self._root, max_age_s=0.2))

    def rows(self) -> Rows:
        return lake_rows(self._root)


@pytest.fixture(params=[Memory, Parquet])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    made: Storage = request.param(tmp_path)
    return made


def ids(count: int) -> list[str]:
    return [new_image_id() for _ in range(count)]


def rows(some: list[str], first: int = 0, partition: Partition = PLACE) -> Rows:
    return [(partition.topic, partition.index, first + at, one) for at, one in enumerate(some)]


def test_a_fresh_partition_is_wanted_from_where_its_log_begins(storage: Storage) -> None:
    assert storage.sink().open(PLACE, Extent("T", 7, 20)) == 7


def test_what_is_safe_is_seen_by_readers_and_by_the_successor(storage: Storage) -> None:
    some, sink = ids(5), storage.opened()
    sink.write(run_of(PLACE, 0, some, gap_after=3))
    assert sink.flush().safe == {PLACE: 8}
    assert storage.rows() == rows(some)
    assert storage.sink().open(PLACE, LOG) == 8


def test_a_run_without_a_row_is_progress_too(storage: Storage) -> None:
    sink = storage.opened()
    sink.write(run_of(PLACE, 0, [], gap_after=4))
    assert sink.flush().safe == {PLACE: 4}
    assert storage.rows() == []


@pytest.mark.parametrize("flushed", [False, True])
def test_offsets_already_taken_are_ignored(storage: Storage, flushed: bool) -> None:
    some, sink = ids(9), storage.opened()
    sink.write(run_of(PLACE, 0, some[:6]))
    if flushed:
        sink.flush()
    sink.write(run_of(PLACE, 0, some[:6]))
    sink.write(run_of(PLACE, 3, some[3:]))
    assert sink.flush().safe == {PLACE: 9}
    assert storage.rows() == rows(some)


def test_what_was_not_flushed_is_wanted_again_and_stands_once(storage: Storage) -> None:
    some, sink = ids(9), storage.opened()
    sink.write(run_of(PLACE, 0, some[:5]))
    sink.flush()
    sink.write(run_of(PLACE, 5, some[5:]))
    sink.close(PLACE)
    sink.close(PLACE)
    position = sink.open(PLACE, LOG)
    assert position == 5
    sink.write(run_of(PLACE, position, some[position:]))
    sink.flush()
    assert storage.rows() == rows(some)


def test_a_flush_of_some_partitions_names_those(storage: Storage) -> None:
    first, second, sink = ids(3), ids(4), storage.opened()
    sink.open(OTHER, LOG)
    sink.write(run_of(PLACE, 0, first))
    sink.write(run_of(OTHER, 0, second))
    assert sink.flush(frozenset({OTHER})).safe == {OTHER: 4}
    assert storage.rows() == rows(second, partition=OTHER)
    assert sink.flush() == Progress({PLACE: 3, OTHER: 4})
    assert storage.rows() == rows(first) + rows(second, partition=OTHER)


def test_ticks_make_safe_what_has_waited(storage: Storage) -> None:
    some, sink = ids(3), storage.opened()
    found = sink.write(run_of(PLACE, 0, some))

    def safe() -> bool:
        nonlocal found
        found = found.merged(sink.tick())
        return found.safe == {PLACE: 3}

    eventually(safe, "safe without a flush")
    assert storage.rows() == rows(some)


def test_of_two_writers_one_goes_ahead_and_the_other_is_told(storage: Storage) -> None:
    some, slow, quick = ids(8), storage.opened(), storage.opened()
    slow.write(run_of(PLACE, 0, some[:3]))
    quick.write(run_of(PLACE, 0, some[:5]))
    assert quick.flush() == Progress({PLACE: 5})
    assert slow.flush() == Progress(superseded=frozenset({PLACE}))
    assert slow.open(PLACE, LOG) == 5
    slow.write(run_of(PLACE, 5, some[5:]))
    assert slow.flush().safe == {PLACE: 8}
    assert storage.rows() == rows(some)


@pytest.mark.parametrize("extent", [Extent("another", 0, 10), Extent("T", 0, 4)], ids=["created-anew", "cut-short"])
def test_a_log_that_contradicts_what_is_kept_is_refused(storage: Storage, extent: Extent) -> None:
    some, sink = ids(5), storage.opened()
    sink.write(run_of(PLACE, 0, some))
    sink.flush()
    with pytest.raises(RefusedError):
        storage.sink().open(PLACE, extent)
    assert storage.rows() == rows(some)


@pytest.mark.kafka
def test_a_delivery_carries_each_result_over_once_while_sinks_come_and_go(
    storage: Storage, connection: KafkaConnection, publisher: Publisher, topics: Topics, group: str
) -> None:
    with Running(connection, publisher, storage.sink(), group):
        carry(storage, publisher)
        with Running(connection, publisher, storage.sink(), group) as second:
            eventually(lambda: len(second.delivery.positions) == 2, "the second got its share", 60)
            carry(storage, publisher)
        carry(storage, publisher)
    messages = [message for message in read_topic(connection, topics.detections) if is_result(message)]
    places = sorted((message.topic(), message.partition(), message.offset()) for message in messages)
    assert [row[:3] for row in storage.rows()] == places
    assert all(earlier[:3] < later[:3] for earlier, later in pairwise(storage.rows()))


def carry(storage: Storage, publisher: Publisher) -> None:
    """Put results and tombstones on the topic, and wait until the results are kept."""
    before = len(storage.rows())
    values = [CODEC.encode(result()) for _ in range(160)]
    put(publisher, [*values, *[None] * 8])
    eventually(lambda: len(storage.rows()) == before + len(values), "all are kept", 60, pause_s=0.1)
