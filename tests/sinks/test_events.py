"""Events made from columns say what the records say."""

import json
import math
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import Codec, PackagedSchemas
from schemas.records import EPOCH, DeadLetter, Detection, DetectionResult, Timings
from sinks.base import Partition, ResultRun
from sinks.events import Event, failure_event, result_events

CODEC = Codec(PackagedSchemas())
PARTITION = Partition("detections", 3)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scores = st.floats(0, 1, width=32)
stages = st.floats(0, 1e6, width=32)
pixels = st.floats(-10, 40_000, width=32)
detections = st.builds(
    Detection, label=words, class_id=st.integers(0, 99), score=scores, x1=pixels, y1=pixels, x2=pixels, y2=pixels
)
results = st.builds(
    DetectionResult,
    id=words,
    image_id=words,
    uri=words,
    tenant=words,
    key=words,
    batch_id=st.none() | words,
    model_name=words,
    image_width=st.integers(0, 2**31 - 1),
    detections=st.lists(detections, max_size=4).map(tuple),
    submitted_at=st.integers(0, 10**12).map(lambda ms: EPOCH + timedelta(milliseconds=ms)),
    timings=st.builds(Timings, wait_ms=stages, fetch_ms=stages, decode_ms=stages, inference_ms=stages),
    attributes=st.dictionaries(words, words, max_size=2),
)


def events_of(records: list[DetectionResult]) -> list[Event]:
    batch = CODEC.decode_run([CODEC.encode(record) for record in records], DetectionResult).batch
    offsets = np.arange(7, 7 + len(records))
    return result_events(ResultRun(PARTITION, 7, 7 + len(records), batch, offsets, offsets))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(results, max_size=5))
def test_columns_say_what_the_records_say(records: list[DetectionResult]) -> None:
    events = events_of(records)
    assert len(events) == len(records)
    for n, (record, event) in enumerate(zip(records, events, strict=True)):
        assert event.body.isascii()
        told = json.loads("{" + event.body)
        for name in ("id", "image_id", "uri", "tenant", "key", "batch_id", "image_width"):
            assert told[name] == getattr(record, name)
        assert told["model"]["name"] == record.model_name
        assert told["attributes"] == dict(record.attributes)
        assert told["timings"] == pytest.approx(asdict(record.timings), abs=1e-3, rel=1e-3)
        assert told["submitted_at_ms"] == (record.submitted_at - EPOCH) // timedelta(milliseconds=1)
        assert (told["partition"], told["offset"]) == (3, 7 + n)
        assert len(told["detections"]) == len(record.detections)
        best: dict[str, float] = {}
        for said, found in zip(told["detections"], record.detections, strict=True):
            assert (said["label"], said["class_id"]) == (found.label, found.class_id)
            assert math.isclose(said["score"], found.score, abs_tol=1e-4)
            for corner, pixel in zip(said["box"], (found.x1, found.y1, found.x2, found.y2), strict=True):
                assert math.isclose(corner, pixel, abs_tol=0.01)
            best[found.label] = max(said["score"], best.get(found.label, 0.0))
        assert event.subject.scores == best
        assert (event.subject.id, event.subject.batch_id) == (record.id, record.batch_id)


def test_a_number_that_json_cannot_hold_spoils_no_frame() -> None:
    box = Detection(label="dog", class_id=1, score=math.nan, x1=math.inf, y1=-math.inf, x2=1, y2=2)
    (event,) = events_of([DetectionResult(id="a", image_id="b", uri="", detections=(box,))])

    def refuse(name: str) -> float:
        raise AssertionError(name)

    assert json.loads("{" + event.body, parse_constant=refuse)["detections"][0]["score"] == 0


def test_a_dead_letter_keeps_its_bytes_to_itself_and_its_id_tells_redeliveries_from_new_failures() -> None:
    failed_at = datetime(2026, 1, 1, tzinfo=UTC)
    letter = DeadLetter(code="x", message="m", stage="fetch", value=b"secret", key=b"\xff", failed_at=failed_at)
    event = failure_event(letter, PARTITION, 5)
    told = json.loads("{" + event.body)
    assert told["key"] == "\ufffd"
    assert told["failed_at_ms"] == 1767225600000
    assert "secret" not in event.body
    again = failure_event(replace(letter, failed_at=failed_at + timedelta(seconds=1)), PARTITION, 6)
    redriven = failure_event(replace(letter, source_offset=9), PARTITION, 7)
    assert event.subject.id == again.subject.id != redriven.subject.id
