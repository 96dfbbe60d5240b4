"""Arbitrary valid records, for property tests."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from schemas.records import (
    DeadLetter,
    Detection,
    DetectionResult,
    DetectParameters,
    Header,
    ImageRef,
    Lane,
    Timings,
)

AnyRecord = ImageRef | DetectionResult | DeadLetter

TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)
INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(width=32, allow_nan=False)
TIMES = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(
    [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
ATTRIBUTES = st.dictionaries(TEXTS, TEXTS, max_size=3)

PARAMETERS = st.builds(
    DetectParameters,
    confidence=st.none() | FLOATS,
    iou=st.none() | FLOATS,
    max_detections=st.none() | INTS,
    classes=st.none() | st.lists(INTS, max_size=3).map(tuple),
)

IMAGE_REFS = st.builds(
    ImageRef,
    id=TEXTS,
    uri=TEXTS,
    tenant=TEXTS,
    key=TEXTS,
    batch_id=st.none() | TEXTS,
    lane=st.sampled_from(Lane),
    model=st.none() | TEXTS,
    parameters=PARAMETERS,
    sha256=st.none() | TEXTS,
    submitted_at=TIMES,
    deadline=st.none() | TIMES,
    attributes=ATTRIBUTES,
)

DETECTIONS = st.builds(Detection, label=TEXTS, class_id=INTS, score=FLOATS, x1=FLOATS, y1=FLOATS, x2=FLOATS, y2=FLOATS)

DETECTION_RESULTS = st.builds(
    DetectionResult,
    id=TEXTS,
    image_id=TEXTS,
    uri=TEXTS,
    batch_id=st.none() | TEXTS,
    lane=st.sampled_from(Lane),
    batch_size=INTS,
    image_width=INTS,
    detections=st.lists(DETECTIONS, max_size=3).map(tuple),
    source_topic=TEXTS,
    source_partition=INTS,
    source_offset=LONGS,
    submitted_at=TIMES,
    completed_at=TIMES,
    timings=st.builds(Timings, wait_ms=FLOATS, fetch_ms=FLOATS, decode_ms=FLOATS, inference_ms=FLOATS),
    attributes=ATTRIBUTES,
)

DEAD_LETTERS = st.builds(
    DeadLetter,
    code=TEXTS,
    message=TEXTS,
    stage=TEXTS,
    attempts=INTS,
    batch_id=st.none() | TEXTS,
    value=st.none() | st.binary(max_size=40),
    key=st.none() | st.binary(max_size=10),
    headers=st.lists(st.builds(Header, name=TEXTS, value=st.none() | st.binary(max_size=10)), max_size=3).map(tuple),
    source_offset=LONGS,
    source_timestamp_ms=LONGS,
    first_failed_at=TIMES,
    failed_at=TIMES,
)

RECORDS: dict[type[Any], st.SearchStrategy[Any]] = {
    ImageRef: IMAGE_REFS,
    DetectionResult: DETECTION_RESULTS,
    DeadLetter: DEAD_LETTERS,
}
