"""Delivery into the Parquet sink on a real Kafka: everything once, whoever joins, leaves, fails or is late."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.records import DeadLetter
from schemas.topics import Topics
from sinks.base import Partition
from sinks.parquet import ParquetPolicy, ParquetSink
from sinks.parquet_verify import verify
from tests.support.deliveries import Running, eventually, mixed, put
from tests.support.disks import FailingDisk
from tests.support.kafka import read_topic
from tests.support.results import BROKEN, CODEC, check_lake, expected_rows, has_chain, lake_rows, result, tip

pytestmark = pytest.mark.kafka


@dataclass(frozen=True)
class Scene:
    """A topic of results and a lake."""

    connection: KafkaConnection
    publisher: Publisher
    topics: Topics
    group: str
    lake: Path
    admin: AdminClient

    def running(self, sink: ParquetSink | None = None, **policy: Any) -> Running:
        return Running(self.connection, self.publisher, sink or self.sink(), policy.pop("group", self.group), **policy)

    def sink(self, **policy: Any) -> ParquetSink:
        quick = {"max_rows": 100, "max_age_s": 0.2, "retry_after_s": 0.05}
        return ParquetSink(ParquetPolicy(directory=self.lake, **{**quick, **policy}))

    def put(self, values: Sequence[bytes | None], keys: int = 16) -> None:
        put(self.publisher, values, keys)

    def settled(self) -> bool:
        """Whether the chain of each partition has reached its end."""
        places = [TopicPartition(self.topics.detections, partition) for partition in range(4)]
        asked = self.admin.list_offsets({place: OffsetSpec.latest() for place in places})
        ends = {place: end.result(10).offset for place, end in asked.items()}
        tips = {place: tip(self.lake, Partition(place.topic, place.partition)) for place in places}
        return tips == ends

    def messages(self) -> list[Message]:
        return read_topic(self.connection, self.topics.detections)

    def committed(self) -> list[int]:
        consumer = Consumer({**self.connection.librdkafka(), "group.id": self.group})
        try:
            places = [TopicPartition(self.topics.detections, partition) for partition in range(4)]
            return [place.offset for place in consumer.committed(places, timeout=10)]
        finally:
            consumer.close()


@pytest.fixture
def scene(connection: KafkaConnection, publisher: Publisher, topics: Topics, group: str, tmp_path: Path) -> Scene:
    return Scene(connection, publisher, topics, group, tmp_path, AdminClient(connection.librdkafka()))


def fresh(count: int) -> list[bytes | None]:
    return [CODEC.encode(result()) for _ in range(count)]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_everything_is_there_once_and_committed(scene: Scene, protocol: str) -> None:
    scene.put(mixed(640))
    with scene.running(protocol=protocol):
        eventually(scene.settled, "all settled")
    messages = scene.messages()
    check_lake(scene.lake, messages)
    assert scene.committed() == [max(m.offset() for m in messages if m.partition() == p) + 1 for p in range(4)]


def test_unreadable_records_are_dead_letters_and_tombstones_are_nothing(scene: Scene) -> None:
    scene.put(mixed(64))
    with scene.running():
        eventually(scene.settled, "all settled")
    bad = {(m.partition(), m.offset()) for m in scene.messages() if m.value() == BROKEN}
    letters = [CODEC.decode(m.value(), DeadLetter) for m in read_topic(scene.connection, scene.topics.dead_letters)]
    assert {(letter.source_partition, letter.source_offset) for letter in letters} == bad
    assert len(letters) == len(bad) == 16
    assert {(letter.stage, letter.code, letter.value) for letter in letters} == {("parquet", "avro_unreadable", BROKEN)}


def test_where_the_log_ends_with_the_process_it_is_read_to_its_end_first(scene: Scene) -> None:
    scene.put(fresh(640))
    with scene.running(records=10, catch_up_s=30.0) as running:
        eventually(lambda: len(running.delivery.positions) == 4, "all partitions are open")
    assert scene.settled()


def test_stopping_makes_safe_what_was_taken(scene: Scene) -> None:
    scene.put(fresh(200))
    sink = scene.sink(max_rows=10_000, max_age_s=3600.0)
    with scene.running(sink) as running:
        eventually(lambda: sink.buffered_rows == 200, "all taken")
        assert not lake_rows(scene.lake)
        running.end()
    check_lake(scene.lake, scene.messages())


def test_a_second_sink_joins_and_leaves(scene: Scene) -> None:
    with scene.running():
        scene.put(mixed(320))
        eventually(lambda: has_chain(scene.lake), "the first works")
        with scene.running() as second:
            scene.put(mixed(320))
            eventually(lambda: len(second.delivery.positions) == 2, "the second got its share")
            scene.put(mixed(320))
        scene.put(mixed(320))
        eventually(scene.settled, "all settled")
    check_lake(scene.lake, scene.messages())


def test_two_groups_on_one_lake_race_and_each_offset_is_there_once(scene: Scene) -> None:
    """Worse than any zombie: both own every partition all the time."""
    with scene.running(scene.sink(max_rows=70)), scene.running(scene.sink(max_rows=110), group=f"{scene.group}.other"):
        for _ in range(4):
            scene.put(mixed(320))
        eventually(scene.settled, "all settled")
    check_lake(scene.lake, scene.messages())


def test_a_full_disk_holds_the_flow_and_loses_nothing(scene: Scene) -> None:
    disk = FailingDisk()
    disk.refuse(errno.ENOSPC)
    sink = ParquetSink(ParquetPolicy(directory=scene.lake, max_age_s=0.2, retry_after_s=0.05), disk)
    with scene.running(sink) as running:
        scene.put(mixed(320))
        eventually(lambda: "No space left" in (running.delivery.complaint() or ""), "it says what is wrong")
        assert not lake_rows(scene.lake)
        disk.allow()
        eventually(scene.settled, "all settled")
        eventually(lambda: running.delivery.complaint() is None, "well again")
    check_lake(scene.lake, scene.messages())


def test_records_deleted_unread_are_an_alarm_not_a_silence(scene: Scene) -> None:
    scene.put(fresh(40), keys=1)
    with scene.running():
        eventually(scene.settled, "all settled")
    scene.put(fresh(40), keys=1)
    [partition] = {message.partition() for message in scene.messages()}
    place = TopicPartition(scene.topics.detections, partition, 50)
    scene.admin.delete_records([place])[place].result(10)
    with scene.running():
        eventually(scene.settled, "all settled")
    [violation] = verify(scene.lake).violations
    assert "offsets 40 to 49 were deleted" in violation
    assert [offset for _, _, offset, _ in lake_rows(scene.lake)] == [*range(40), *range(50, 80)]


def test_records_deleted_while_it_runs_are_an_alarm_too(scene: Scene) -> None:
    disk = FailingDisk()
    sink = ParquetSink(ParquetPolicy(directory=scene.lake, max_age_s=0.2, retry_after_s=0.05), disk)
    with scene.running(sink) as running:
        scene.put(fresh(40), keys=1)
        eventually(scene.settled, "all settled")
        [partition] = {message.partition() for message in scene.messages()}
        disk.refuse(errno.EIO)
        scene.put(fresh(10), keys=1)
        eventually(lambda: running.delivery.complaint() is not None, "it waits")
        scene.put(fresh(40), keys=1)
        place = TopicPartition(scene.topics.detections, partition, 70)
        scene.admin.delete_records([place])[place].result(10)
        disk.allow()
        eventually(scene.settled, "all settled")
    held = [offset for _, _, offset, _ in lake_rows(scene.lake)]
    assert held[:50] == [*range(50)]
    assert held[-20:] == [*range(70, 90)]
    lost = set(range(90)) - set(held)
    assert bool(lost) == bool(verify(scene.lake).violations)


def test_a_topic_made_anew_is_refused_and_the_others_go_on(scene: Scene) -> None:
    scene.put(fresh(40))
    with scene.running():
        eventually(scene.settled, "all settled")
    genesis = scene.lake / "_log" / scene.topics.detections / "1" / "genesis.json"
    genesis.write_text(genesis.read_text().replace('"topic_id": "', '"topic_id": "another-'))
    before = expected_rows(scene.messages())
    scene.put(fresh(40))
    others = [row for row in expected_rows(scene.messages()) if row[1] != 1]
    with scene.running() as running:
        eventually(lambda: "created anew" in (running.delivery.complaint() or ""), "it says what is wrong")
        eventually(lambda: [row for row in lake_rows(scene.lake) if row[1] != 1] == others, "the others go on")
    assert [row for row in lake_rows(scene.lake) if row[1] == 1] == [row for row in before if row[1] == 1]
