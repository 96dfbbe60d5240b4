"""What a replay sees of the lanes on a real Kafka: people's latency, and what waits."""

from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Consumer, TopicPartition

from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.records import DetectionResult, ImageRef, Lane
from schemas.topics import Topics
from streams.replay_online import Online
from streams.replay_pace import Sight
from streams.replay_policy import ReplayPolicy
from tests.support.deliveries import eventually

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def result(
    at: int, latency_ms: int, ago_s: float = 1.0, lane: Lane = Lane.ONLINE, silent: bool = False
) -> DetectionResult:
    done = NOW - timedelta(seconds=ago_s)
    return DetectionResult(
        id=f"{at}",
        image_id=f"{at}",
        uri="file:///a",
        lane=lane,
        silent=silent,
        submitted_at=done - timedelta(milliseconds=latency_ms),
        completed_at=done,
    )


@pytest.mark.kafka
def test_it_sees_how_long_people_wait_and_what_waits(
    connection: KafkaConnection,
    codec: Codec,
    topics: Topics,
    publisher: Publisher,
    group: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    others = [result(at, 9000, ago_s=60) for at in range(100, 140)]
    others += [result(141, 9000, lane=Lane.BULK), result(142, 9000, silent=True)]
    mixed = [one for pair in zip(others, (result(at, 100) for at in range(len(others))), strict=True) for one in pair]
    for one in mixed:
        publisher.put(topics.detections, one.id, one).result(30)
    receipts = [publisher.publish(ImageRef(id=f"{at}", uri="file:///a", key="k")).result(30) for at in range(3)]
    publisher.publish(ImageRef(id="b", uri="file:///a", lane=Lane.BULK)).result(30)
    consumer = Consumer({**connection.librdkafka(), "group.id": group, "log_level": 0})
    try:
        done = TopicPartition(topics.online, receipts[0].partition, receipts[0].offset + 1)
        consumer.commit(offsets=[done], asynchronous=False)
    finally:
        consumer.close()
    with Online(connection, codec, topics, group, ReplayPolicy(), NOW.timestamp) as online:
        seen = online.look() or Sight(0, 0)
        assert (seen.online_lag, seen.bulk_lag) == (2, 1)
        assert seen.p95_ms == pytest.approx(100)
        for at in range(200, 300):
            publisher.put(topics.detections, f"{at}", result(at, 400)).result(30)
        eventually(lambda: (online.look() or Sight(0, 0)).p95_ms == pytest.approx(400), "the new ones are seen", 60)
    assert not caplog.records
    with Online(connection, codec, topics, f"not-{group}", ReplayPolicy(), NOW.timestamp) as online:
        assert (online.look() or Sight(0, 0)).online_lag == 3
    assert f"the group not-{group} has worked off nothing" in caplog.text
