"""The tail of a real Kafka ends waits: an outcome is told as soon as it is on the log, whoever listens beside."""

import asyncio

import pytest

from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import Reason
from schemas.records import DeadLetter, DetectionResult
from schemas.topics import Topics
from sinks.events import Kind
from sinks.feeds import Feeds
from sinks.notifier import Hub
from sinks.waits import Waits
from streams.tail import Tail, TailPolicy
from tests.support.subscribers import PATIENT_S, quick

pytestmark = pytest.mark.kafka


async def test_waits_end_when_the_outcome_is_on_the_log(
    connection: KafkaConnection, topics: Topics, codec: Codec, publisher: Publisher
) -> None:
    def send(topic: str, record: DetectionResult | DeadLetter) -> None:
        publisher.send(topic, b"k", codec.encode(record), lambda error, _: None)

    waits, hub = Waits(), Hub(quick())
    tail = Tail(connection, codec, topics, TailPolicy())
    following = asyncio.create_task(tail.run(Feeds(waits, hub)))
    waiting = asyncio.create_task(waits.wait("default", [f"i{n}" for n in range(100)], PATIENT_S))
    try:
        async with asyncio.timeout(PATIENT_S):
            for n in range(99):
                send(topics.detections, DetectionResult(id=f"r{n}", image_id=f"i{n}", uri="file:///a.jpg"))
            letter = DeadLetter(code=Reason.IMAGE_CORRUPT, message="", stage="decode", image_id="i99", tenant="default")
            send(topics.dead_letters, letter)
            found = await waiting
        assert len(found) == 100
        assert {name for name, event in found.items() if event.subject.kind is Kind.FAILED} == {"i99"}
        assert list(await waits.wait("default", ["i7"], 0)) == ["i7"]  # it came before this wait began
    finally:
        tail.stop()
        await following
