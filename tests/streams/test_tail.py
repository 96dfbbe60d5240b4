"""The tail and the hub on a real Kafka: what is published is pushed, in order per key."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from infra.broker.local import LocalKafka
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import BusyError, Reason
from schemas.records import DeadLetter, Detection, DetectionResult, ImageRef
from schemas.topics import Topics
from sinks.events import Event
from sinks.notifier import Hub
from streams.tail import Tail, TailPolicy
from tests.support.kafka import create_topics, delete_topics
from tests.support.subscribers import PATIENT_S, connected, quick, serving

POLICY = TailPolicy(refresh_s=0.3, pause_s=0.1)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def result(number: int, key: str = "", label: str = "dog") -> DetectionResult:
    box = Detection(label=label, class_id=16, score=0.875, x1=1.5, y1=2, x2=3, y2=4)
    return DetectionResult(
        id=f"r{number}",
        image_id=f"i{number}",
        uri='file:///a"ü.jpg',
        key=key,
        batch_id="b",
        detections=(box, replace(box, score=0.5), replace(box, label="cat", score=0.25)),
        submitted_at=NOW,
        completed_at=NOW,
        attributes={"n": str(number), 'quote"': "ü"},
    )


class Listening:
    """A feed that only remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.resets: list[str] = []
        self.opened = asyncio.Event()

    async def publish(self, events: Sequence[Event]) -> None:
        self.events += events

    def reset(self, reason: str) -> None:
        self.resets.append(reason)

    def open(self) -> None:
        self.opened.set()

    def ids(self) -> list[str]:
        return [event.subject.id for event in self.events]


@asynccontextmanager
async def running(tail: Tail, feed: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(tail.run(feed))
    try:
        yield
    finally:
        tail.stop()
        async with asyncio.timeout(PATIENT_S):
            await task


async def until(condition: Callable[[], bool], patient_s: float = PATIENT_S) -> None:
    async with asyncio.timeout(patient_s):
        while not condition():  # noqa: ASYNC110 - nothing announces what is waited for
            await asyncio.sleep(0.01)


class Writer:
    """Puts results and dead letters on this test's topics and waits until they are there."""

    def __init__(self, publisher: Publisher, codec: Codec, topics: Topics) -> None:
        self._publisher, self._codec, self._topics = publisher, codec, topics

    async def put(self, *records: DetectionResult | DeadLetter) -> None:
        for record in records:
            letter = isinstance(record, DeadLetter)
            topic = self._topics.dead_letters if letter else self._topics.detections
            key = record.key if isinstance(record, DeadLetter) else (record.key or record.image_id).encode()
            self._send(topic, key, self._codec.encode(record))
        await asyncio.to_thread(self._publisher.flush, 120)

    async def put_bytes(self, value: bytes | None) -> None:
        self._send(self._topics.detections, b"k", value)
        await asyncio.to_thread(self._publisher.flush, 120)

    def _send(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        self._publisher.send(topic, key=key, value=value, on_delivery=lambda error, receipt: None)


@pytest.fixture
def writer(publisher: Publisher, codec: Codec, topics: Topics) -> Writer:
    return Writer(publisher, codec, topics)


@pytest.fixture
def tail(connection: KafkaConnection, codec: Codec, topics: Topics) -> Tail:
    return Tail(connection, codec, topics, POLICY)


@pytest.mark.kafka
async def test_results_are_pushed_in_order_per_key_with_all_that_they_say(tail: Tail, writer: Writer) -> None:
    hub = Hub(quick())
    async with serving(hub, opened=False) as server, running(tail, hub):
        await until(lambda: hub.ready)
        async with connected(server, "?batch=b") as client, connected(server, "?key=camera-1") as one:
            await client.hear_type("subscribed")
            await one.hear_type("subscribed")
            await writer.put(*(result(n, key=f"camera-{n % 3}") for n in range(300)))
            heard = await client.hear(lambda messages: sum(m["type"] == "result" for m in messages) >= 300)
            told = [message for message in heard if message["type"] == "result"]
            for camera in range(3):
                mine = [int(message["id"][1:]) for message in told if message["key"] == f"camera-{camera}"]
                assert mine == list(range(camera, 300, 3))
            await one.hear(lambda messages: sum(m["type"] == "result" for m in messages) >= 100)
            assert [m["id"] for m in one.heard if m["type"] == "result"] == [f"r{n}" for n in range(1, 300, 3)]
    first = next(message for message in told if message["id"] == "r0")
    del first["cursor"], first["partition"]
    box = {"label": "dog", "class_id": 16, "score": 0.875, "box": [1.5, 2.0, 3.0, 4.0]}
    assert first == {
        "type": "result",
        "id": "r0",
        "image_id": "i0",
        "tenant": "default",
        "batch_id": "b",
        "key": "camera-0",
        "uri": 'file:///a"ü.jpg',
        "lane": "online",
        "model": {"name": "", "version": "", "digest": ""},
        "image_width": 0,
        "image_height": 0,
        "submitted_at_ms": 1767323045000,
        "completed_at_ms": 1767323045000,
        "attributes": {"n": "0", 'quote"': "ü"},
        "timings": {"wait_ms": 0.0, "fetch_ms": 0.0, "decode_ms": 0.0, "inference_ms": 0.0},
        "detections": [box, {**box, "score": 0.5}, {**box, "label": "cat", "score": 0.25}],
        "offset": 0,
    }


@pytest.mark.kafka
async def test_a_failure_is_told_to_whoever_waits_for_the_image(tail: Tail, writer: Writer) -> None:
    hub = Hub(quick())
    letter = DeadLetter(
        code=Reason.IMAGE_CORRUPT,
        message="no JPEG",
        stage="fetch",
        attempts=2,
        image_id="i7",
        tenant="t",
        batch_id="b",
        key=b"camera",
        source_topic="images.online",
        source_partition=3,
        source_offset=9,
        failed_at=NOW,
    )
    async with serving(hub, opened=False) as server, running(tail, hub):
        await until(lambda: hub.ready)
        async with connected(server, "?image=i7&label=dog") as client:
            await client.hear_type("subscribed")
            await writer.put(letter, letter, result(7))
            heard = await client.hear(lambda messages: {"failed", "result"} <= {m["type"] for m in messages})
    failures = [message for message in heard if message["type"] == "failed"]
    assert len(failures) == 1, "the same failure twice in the log is told once"
    del failures[0]["cursor"]
    assert failures[0] == {
        "type": "failed",
        "id": "images.online/3/9/image_corrupt/2",
        "image_id": "i7",
        "tenant": "t",
        "batch_id": "b",
        "key": "camera",
        "code": "image_corrupt",
        "message": "no JPEG",
        "stage": "fetch",
        "attempts": 2,
        "failed_at_ms": 1767323045000,
        "partition": 0,
        "offset": 0,
    }


@pytest.mark.kafka
async def test_nobody_is_told_of_what_a_silent_replay_brings(tail: Tail, writer: Writer, codec: Codec) -> None:
    feed = Listening()
    ref = ImageRef(id="i1", uri="file:///a.jpg", silent=True)
    letters = [
        DeadLetter(code=Reason.IMAGE_CORRUPT, message="", stage="fetch", image_id="i1", value=codec.encode(ref)),
        DeadLetter(code=Reason.IMAGE_CORRUPT, message="", stage="fetch", image_id="i2", value=b"no reference"),
    ]
    async with running(tail, feed):
        await until(feed.opened.is_set)
        await writer.put(*letters, replace(result(3), silent=True), result(4), replace(result(5), silent=True))
        await until(lambda: len(feed.events) == 2)
    assert {event.subject.image_id for event in feed.events} == {"i2", "i4"}


@pytest.mark.kafka
async def test_a_result_twice_in_the_log_is_one_notification(tail: Tail, writer: Writer) -> None:
    hub = Hub(quick())
    async with serving(hub, opened=False) as server, running(tail, hub):
        await until(lambda: hub.ready)
        async with connected(server, "?tenant=default") as client:
            await client.hear_type("subscribed")
            await writer.put(result(1, "k"), result(2, "k"), result(1, "k"), result(2, "k"), result(3, "k"))
            await client.hear(lambda messages: any(m.get("id") == "r3" for m in messages))
    assert [m["id"] for m in client.heard if m["type"] == "result"] == ["r1", "r2", "r3"]


@pytest.mark.kafka
async def test_it_starts_within_the_window_and_opens_when_that_is_read(
    connection: KafkaConnection, codec: Codec, topics: Topics, writer: Writer
) -> None:
    await writer.put(*(result(n) for n in range(50)))
    feed = Listening()
    async with running(Tail(connection, codec, topics, POLICY), feed):
        await asyncio.wait_for(feed.opened.wait(), PATIENT_S)
        assert sorted(feed.ids()) == sorted(f"r{n}" for n in range(50))
    later = Listening()
    tomorrow = replace(POLICY, window_s=-3600.0, window_records=0)
    async with running(Tail(connection, codec, topics, tomorrow), later):
        await asyncio.wait_for(later.opened.wait(), PATIENT_S)
        await writer.put(result(50))
        await until(lambda: bool(later.events))
        assert later.ids() == ["r50"]


@pytest.mark.kafka
async def test_what_cannot_be_read_is_skipped_and_hurts_no_neighbour(tail: Tail, writer: Writer) -> None:
    feed = Listening()
    async with running(tail, feed):
        await asyncio.wait_for(feed.opened.wait(), PATIENT_S)
        await writer.put_bytes(b"not avro")
        await writer.put_bytes(None)
        await writer.put(result(1, "k"))
        await until(lambda: feed.ids() == ["r1"])
        assert '"offset":2}' in feed.events[0].body


@pytest.mark.kafka
async def test_partitions_that_are_added_are_read_from_their_start(
    tail: Tail, writer: Writer, connection: KafkaConnection, topics: Topics
) -> None:
    feed = Listening()
    async with running(tail, feed):
        await asyncio.wait_for(feed.opened.wait(), PATIENT_S)
        admin = AdminClient(connection.librdkafka())
        for future in admin.create_partitions([NewPartitions(topics.dead_letters, 8)]).values():
            await asyncio.to_thread(future.result, 30)
        letters = [DeadLetter(code="x", message="", stage="s", key=f"{n}".encode(), source_offset=n) for n in range(64)]
        await writer.put(*letters)
        await until(lambda: len(feed.events) == 64)


@pytest.mark.kafka
async def test_a_topic_that_is_made_anew_is_announced_as_a_gap_and_read_from_its_start(
    tail: Tail, writer: Writer, connection: KafkaConnection, codec: Codec, topics: Topics
) -> None:
    feed = Listening()
    async with running(tail, feed):
        await asyncio.wait_for(feed.opened.wait(), PATIENT_S)
        await writer.put(*(result(n, "k") for n in range(20)))
        await until(lambda: len(feed.events) == 20)
        await asyncio.to_thread(_make_anew, connection, topics.detections)
        with Publisher(connection, codec, topics) as publisher:
            await Writer(publisher, codec, topics).put(result(20, "k"), result(21, "k"))
        await until(lambda: feed.ids()[20:] == ["r20", "r21"], 60)
        assert feed.resets == ["log_truncated"]


def _make_anew(connection: KafkaConnection, topic: str) -> None:
    delete_topics(connection, [topic])
    admin = AdminClient(connection.librdkafka())

    deadline = time.monotonic() + PATIENT_S
    while topic in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < deadline, "the topic was not deleted"
    admin.create_topics([NewTopic(topic, num_partitions=4)])[topic].result(30)


@pytest.mark.kafka
@pytest.mark.kill
async def test_a_broker_that_is_killed_and_comes_back_costs_no_event(private_kafka: LocalKafka, codec: Codec) -> None:
    connection = KafkaConnection(bootstrap=private_kafka.bootstrap)
    topics = Topics(prefix="killed.")
    await asyncio.to_thread(create_topics, connection, topics)
    hub = Hub(quick())
    with Publisher(connection, codec, topics) as publisher:
        writer = Writer(publisher, codec, topics)
        tail = Tail(connection, codec, topics, POLICY)
        async with serving(hub, opened=False) as server, running(tail, hub):
            await until(lambda: hub.ready)
            async with connected(server, "?key=k") as client:
                await client.hear_type("subscribed")
                await writer.put(*(result(n, "k") for n in range(50)))
                await client.hear(lambda messages: any(m.get("id") == "r49" for m in messages))
                await asyncio.to_thread(private_kafka.kill)
                putting = asyncio.create_task(writer.put(*(result(n, "k") for n in range(50, 100))))
                await asyncio.to_thread(private_kafka.start)
                await putting
                await client.hear(lambda messages: any(m.get("id") == "r99" for m in messages), patient_s=120)
    assert [m["id"] for m in client.heard if m["type"] == "result"] == [f"r{n}" for n in range(100)]
    assert not any(m["type"] == "gap" for m in client.heard)


@pytest.mark.kafka
@pytest.mark.kill
async def test_a_broker_that_is_not_there_yet_is_waited_for(private_kafka: LocalKafka, codec: Codec) -> None:
    connection = KafkaConnection(bootstrap=private_kafka.bootstrap)
    topics = Topics(prefix="late.")
    await asyncio.to_thread(create_topics, connection, topics)
    await asyncio.to_thread(private_kafka.kill)
    feed = Listening()
    async with running(Tail(connection, codec, topics, POLICY), feed):
        await asyncio.to_thread(private_kafka.start)
        await asyncio.wait_for(feed.opened.wait(), 60)


@pytest.mark.kafka
async def test_back_pressure_bounds_what_is_in_memory(
    connection: KafkaConnection, codec: Codec, topics: Topics, writer: Writer
) -> None:
    """While the feed takes nothing, the tail has at most one run in hand."""
    await writer.put(*(result(n, "k") for n in range(500)))
    taken: list[int] = []
    gate = asyncio.Event()

    class Stuck(Listening):
        async def publish(self, events: Sequence[Event]) -> None:
            taken.append(len(events))
            await gate.wait()
            await super().publish(events)

    feed = Stuck()
    async with running(Tail(connection, codec, topics, replace(POLICY, run_records=50)), feed):
        await until(lambda: bool(taken))
        await asyncio.sleep(0)
        assert len(taken) == 1
        assert taken[0] <= 50
        gate.set()
        await until(lambda: len(feed.events) == 500)
    assert feed.ids() == [f"r{n}" for n in range(500)]


@pytest.mark.kafka
async def test_it_waits_for_a_registry_that_does_not_answer(
    connection: KafkaConnection, codec: Codec, topics: Topics, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, False])
    decode_run = codec.decode_run

    def unsure(values: Any, record: Any) -> Any:
        if next(answers, True):
            return decode_run(values, record)
        raise BusyError(Reason.SCHEMA_UNKNOWN, "the registry does not answer")

    monkeypatch.setattr(codec, "decode_run", unsure)
    feed = Listening()
    async with running(Tail(connection, codec, topics, POLICY), feed):
        await asyncio.wait_for(feed.opened.wait(), PATIENT_S)
        await writer.put(result(1))
        await until(lambda: feed.ids() == ["r1"])
