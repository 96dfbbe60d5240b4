"""Waiting for a batch on a real Kafka: results, dead letters, foreign records, and giving up."""

from datetime import timedelta

import pytest

from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError
from schemas.records import EPOCH, DeadLetter, Detection, DetectionResult
from schemas.topics import Topics
from streams.awaiting import Outcomes, Tally

pytestmark = pytest.mark.kafka


def box(label: str) -> Detection:
    return Detection(label=label, class_id=0, score=0.5, x1=0, y1=0, x2=1, y2=1)


def send(publisher: Publisher, topic: str, value: bytes | None) -> None:
    publisher.send(topic, b"k", value, lambda error, _: None)


def put_result(publisher: Publisher, image_id: str, took_ms: int = 0, labels: tuple[str, ...] = ()) -> None:
    result = DetectionResult(
        id=f"r-{image_id}",
        image_id=image_id,
        uri="s3://b/k",
        detections=tuple(box(label) for label in labels),
        submitted_at=EPOCH,
        completed_at=EPOCH + timedelta(milliseconds=took_ms),
    )
    send(publisher, publisher.topics.detections, publisher.codec.encode(result))


def put_letter(publisher: Publisher, image_id: str, code: str) -> None:
    letter = DeadLetter(code=code, message="", stage="fetch", image_id=image_id)
    send(publisher, publisher.topics.dead_letters, publisher.codec.encode(letter))


def test_it_counts_first_outcomes_after_the_mark_and_nothing_else(
    connection: KafkaConnection, publisher: Publisher, codec: Codec, topics: Topics
) -> None:
    put_result(publisher, "a", labels=("too early",))
    publisher.flush(30)
    with Outcomes(connection, codec, topics) as outcomes:
        marks = outcomes.marks()
        put_result(publisher, "foreign", labels=("no",))
        put_letter(publisher, "foreign too", "fetch_failed")
        send(publisher, topics.detections, b"rubbish")
        send(publisher, topics.dead_letters, b"rubbish")
        send(publisher, topics.dead_letters, None)
        for n in range(1, 101):
            put_result(publisher, f"i{n}", took_ms=n, labels=("cat", "cat", "dog"))
        put_result(publisher, "i1", labels=("again",))
        put_letter(publisher, "bad", "image_corrupt")
        put_result(publisher, "a")
        publisher.flush(30)
        seen: list[int] = []
        waiting = {"a", "bad", *(f"i{n}" for n in range(1, 101))}
        tally = outcomes.wait(waiting, marks, patience_s=30, watch=seen.append)
    assert not waiting
    assert (tally.results, tally.failures) == (101, {"bad": "image_corrupt"})
    assert tally.detections == {"cat": 200, "dog": 100}
    assert sum(seen) == 102
    assert tally.latency_ms(0.5) == pytest.approx(50)
    assert tally.latency_ms(0.95) == pytest.approx(95)
    assert tally.latency_ms(1.0) == pytest.approx(100)


def test_it_gives_up_when_nothing_came_for_so_long_and_leaves_what_is_missing(
    connection: KafkaConnection, publisher: Publisher, codec: Codec, topics: Topics
) -> None:
    clock = [0.0]

    def now() -> float:
        clock[0] += 1.0
        return clock[0]

    with Outcomes(connection, codec, topics) as outcomes:
        marks = outcomes.marks(from_start=True)
        put_result(publisher, "a")
        publisher.flush(30)
        waiting = {"a", "b"}
        assert outcomes.wait(waiting, marks, patience_s=60, now=now).results == 1
    assert waiting == {"b"}


def test_without_topics_it_says_what_to_do(connection: KafkaConnection, codec: Codec) -> None:
    with (
        Outcomes(connection, codec, Topics("never.created.")) as outcomes,
        pytest.raises(ConfigurationError, match="sightstream topics create"),
    ):
        outcomes.marks()


def test_no_result_no_latency() -> None:
    assert Tally().latency_ms(0.5) is None
