"""The projection on a real Kafka: everything that is on the topics is in the store, once, and a reader can wait for it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.control import Batch, Deletion, WorkerProgress
from schemas.errors import BusyError, Reason
from schemas.records import DeadLetter, Detection, DetectionResult, ImageRef
from schemas.topics import Topics
from sinks.base import Partition
from sinks.store import SqlResultStore
from sinks.store_fold import Changes
from sinks.store_fresh import FreshReads, StoreBehindError
from sinks.store_policy import StorePolicy
from sinks.store_schema import migrate
from sinks.store_tables import PULSE
from sinks.store_upkeep import clear
from sinks.store_writes import StoreWriter, UnstorableError
from sinks.stored import Gone, StoredImage
from streams.log_ends import KafkaLogEnds
from streams.membership import MembershipPolicy
from streams.projected import LogReader
from streams.projection import Projection, ProjectionPolicy
from tests.support.deliveries import eventually
from tests.support.stores import START, START_US

pytestmark = pytest.mark.kafka

BROKEN = b"\x00\x00\x00\x00\x01broken"
PATIENT_S = 120.0


class Speaker:
    """Puts records on this test's topics and waits until they are there."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher, self.topics = publisher, publisher.topics

    def ref(self, number: int, **changes: Any) -> ImageRef:
        values = {
            "id": f"i{number}",
            "uri": "file:///a.jpg",
            "tenant": "acme",
            "key": f"camera-{number % 5}",
            "submitted_at": START,
        }
        return ImageRef(**{**values, **changes})

    def outcome(self, number: int, label: str = "dog", **changes: Any) -> DetectionResult:
        box = Detection(label=label, class_id=16, score=0.5, x1=1, y1=2, x2=3, y2=4)
        ref = self.ref(number)
        values = {
            "id": f"r{number}",
            "image_id": ref.id,
            "uri": ref.uri,
            "tenant": ref.tenant,
            "key": ref.key,
            "model_name": "codes",
            "detections": (box,),
            "submitted_at": START,
            "completed_at": START + timedelta(seconds=1),
        }
        return DetectionResult(**{**values, **changes})

    def say(self, *records: Any, headers: list[tuple[str, bytes]] | None = None) -> None:
        for record in records:
            topic, key = self._place(record)
            self.put(topic, key, self.publisher.codec.encode(record), headers)
        self.publisher.flush(PATIENT_S)

    def put(self, topic: str, key: bytes, value: bytes | None, headers: Any = None) -> None:
        self.publisher.send(topic, key, value, lambda error, _: None, headers or [])

    def _place(self, record: Any) -> tuple[str, bytes]:
        match record:
            case ImageRef():
                return self.topics.online, record.ordering_key.encode()
            case DetectionResult():
                return self.topics.detections, record.key.encode()
            case DeadLetter():
                return self.topics.dead_letters, record.key or b""
            case Batch():
                return self.topics.batches, f"{record.tenant}/{record.id}".encode()
            case Deletion():
                return self.topics.deletions, record.image_id.encode()
            case WorkerProgress():
                return self.topics.progress, f"{record.topic}/{record.partition}".encode()
        raise AssertionError(record)


@pytest.fixture
def speaker(publisher: Publisher) -> Speaker:
    return Speaker(publisher)


@pytest.fixture
def policy(tmp_path: Path) -> StorePolicy:
    return StorePolicy(database_url=f"sqlite:///{tmp_path}/store.db", keep_days=0, catch_up_s=PATIENT_S)


@pytest.fixture
def writer(policy: StorePolicy) -> Iterator[StoreWriter]:
    writer = StoreWriter(policy, lambda: START_US)
    migrate(writer.engine)
    yield writer
    writer.close()


@pytest.fixture
def store(policy: StorePolicy, writer: StoreWriter) -> Iterator[SqlResultStore]:
    store = SqlResultStore(policy, lambda: START_US)
    yield store
    store.close()


@pytest.fixture
def ends(connection: KafkaConnection, topics: Topics) -> Iterator[KafkaLogEnds]:
    ends = KafkaLogEnds(connection, topics)
    yield ends
    ends.close()


@pytest.fixture
def reads(store: SqlResultStore, ends: KafkaLogEnds) -> FreshReads:
    return FreshReads(store, ends, PATIENT_S)


Start = Callable[..., Any]


@pytest.fixture
def start(connection: KafkaConnection, codec: Codec, topics: Topics, group: str, writer: StoreWriter) -> Start:
    """Runs a projection on a thread while a block runs; fails if it died."""

    @contextmanager
    def run(store: Any = None, **policy: Any) -> Iterator[Projection]:
        projection = Projection(
            connection,
            LogReader(codec, topics),
            store or writer,
            ProjectionPolicy(**{"poll_s": 0.05, "tick_s": 0.1, **policy}),
            MembershipPolicy(group=group, tells_end=True),
        )
        stop, died = threading.Event(), list[BaseException]()

        def work() -> None:
            try:
                projection.run(stop)
            except BaseException as error:
                died.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield projection
        finally:
            stop.set()
            thread.join(PATIENT_S)
        assert not died
        assert not thread.is_alive()

    return run


async def test_what_was_written_is_read_and_what_was_not_is_unknown(
    speaker: Speaker, reads: FreshReads, ends: KafkaLogEnds, store: SqlResultStore, start: Start
) -> None:
    topics = speaker.topics
    letter = DeadLetter(
        code="image_corrupt", message="no", stage="decode", image_id="i2", tenant="acme", key=b"camera-2"
    )
    with start() as projection:
        speaker.say(*(speaker.ref(n, batch_id="b1") for n in range(5)), Batch(id="b1", tenant="acme", images=5))
        speaker.say(WorkerProgress(topic=topics.online, partition=0, taken=9))
        for topic in (topics.online, topics.detections, topics.dead_letters, topics.batches, topics.deletions):
            speaker.put(topic, b"k", BROKEN)
            speaker.put(topic, b"k", None)
        speaker.say(speaker.outcome(0), speaker.outcome(1), letter, Deletion(image_id="i1", tenant="acme"))
        assert await reads.reaches(await ends.ends())
        assert await reads.find(lambda: store.image("acme", "i5")) is None
        eventually(lambda: projection.complaint() is None, "it has its partitions", PATIENT_S)
        await asyncio.to_thread(eventually, lambda: asyncio.run(store.behind_s()) == 0.0, "it is at the end", PATIENT_S)
    found = await store.images_by_id("acme", [f"i{n}" for n in range(6)])
    assert {name: type(one) for name, one in found.items()} == {
        **dict.fromkeys(["i0", "i2", "i3", "i4"], StoredImage),
        "i1": Gone,
    }
    again = await store.batch("acme", "b1")
    assert again is not None
    assert (again.completed, again.failed, again.gone) == (1, 1, 1)


async def test_a_redrive_is_told_by_its_header(
    speaker: Speaker, reads: FreshReads, ends: KafkaLogEnds, store: SqlResultStore, start: Start
) -> None:
    topics = speaker.topics
    ref = speaker.ref(1)
    letter = DeadLetter(
        code="fetch_failed",
        message="no",
        stage="fetch",
        image_id="i1",
        tenant="acme",
        value=speaker.publisher.codec.encode(ref),
        key=b"camera-1",
        source_topic=topics.online,
        failed_at=START,
    )
    speaker.say(letter)
    with start():
        failed = await reads.find(lambda: store.image("acme", "i1"))
        assert isinstance(failed, StoredImage)
        assert (failed.status, failed.uri) == ("failed", "file:///a.jpg")
        speaker.say(ref, headers=[("redrive.of", f"{topics.dead_letters}:0:0".encode())])
        assert await reads.reaches(await ends.ends())
    opened = await store.image("acme", "i1")
    assert isinstance(opened, StoredImage)
    assert opened.status == "queued"


async def test_records_that_a_database_refuses_cost_no_other(
    speaker: Speaker, reads: FreshReads, store: SqlResultStore, writer: StoreWriter, start: Start
) -> None:
    class Picky:
        """A database that takes no image 7."""

        def __getattr__(self, name: str) -> Any:
            return getattr(writer, name)

        def write(self, changes: Changes) -> None:
            if any(record.id == "i7" for record in changes.submissions):
                raise UnstorableError("no sevens")
            writer.write(changes)

    speaker.say(*(speaker.ref(n) for n in range(40)))
    with start(Picky()):
        assert await reads.find(lambda: store.image("acme", "i7")) is None
    found = await store.images_by_id("acme", [f"i{n}" for n in range(40)])
    assert sorted(found) == sorted(f"i{n}" for n in range(40) if n != 7)


async def test_it_waits_for_a_database_that_is_away_and_for_a_store_that_was_cleared(
    speaker: Speaker, reads: FreshReads, store: SqlResultStore, writer: StoreWriter, start: Start
) -> None:
    class Away:
        """A database that is away for the first three transactions with records in them."""

        left = 3

        def __getattr__(self, name: str) -> Any:
            return getattr(writer, name)

        def write(self, changes: Changes) -> None:
            if changes.submissions and self.left:
                self.left -= 1
                raise BusyError(Reason.STORAGE_UNAVAILABLE, "away", 0.05)
            writer.write(changes)

    speaker.say(*(speaker.ref(n) for n in range(10)))
    with start(Away()):
        assert await reads.find(lambda: store.image("acme", "i3"))
        clear(writer.engine)
        assert await reads.find(lambda: store.image("acme", "i3"))
        speaker.say(speaker.ref(50))
        assert await reads.find(lambda: store.image("acme", "i50"))
    assert len(await store.images_by_id("acme", [f"i{n}" for n in range(60)])) == 11


async def test_two_share_the_work_and_each_result_counts_once(
    speaker: Speaker, ends: KafkaLogEnds, store: SqlResultStore, policy: StorePolicy, writer: StoreWriter, start: Start
) -> None:
    other = StoreWriter(policy, lambda: START_US + 1_000_000)
    speaker.say(*(speaker.outcome(n) for n in range(200)))
    with start(records=20), start(other, records=20):
        speaker.say(*(speaker.outcome(n) for n in range(200, 400)), *(speaker.outcome(n) for n in range(100)))
        assert await FreshReads(store, ends, PATIENT_S).reaches(await ends.ends())
    other.close()
    with writer.engine.connect() as connection:
        assert connection.execute(select(func.sum(PULSE.c.images))).scalar_one() == 400


async def test_a_store_that_is_behind_says_so(speaker: Speaker, store: SqlResultStore, ends: KafkaLogEnds) -> None:
    speaker.say(speaker.ref(1))
    with pytest.raises(StoreBehindError):
        await FreshReads(store, ends, 0.05).find(lambda: store.image("acme", "i1"))


async def test_the_ends_are_those_of_the_moment(speaker: Speaker, ends: KafkaLogEnds, topics: Topics) -> None:
    before = await ends.ends()
    assert set(before.values()) == {0}
    assert Partition(topics.progress, 0) not in before
    speaker.say(*(speaker.ref(n) for n in range(20)))
    after = await ends.ends()
    assert sum(after.values()) == 20
    assert replace(Partition(topics.online, 0), index=1) in after
