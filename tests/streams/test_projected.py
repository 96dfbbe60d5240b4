"""What records of the log change in the store: each is read as it was meant, or passed over alone."""

from datetime import timedelta
from typing import Any

import pytest

from schemas.codec import Codec
from schemas.control import Batch, Deletion
from schemas.records import DeadLetter, Detection, DetectionResult, DetectParameters, Header, ImageRef, Lane
from schemas.topics import Topics
from sinks.base import Partition
from sinks.store_fold import Advance, Changes
from sinks.store_records import NOT_REDRIVEN, NOWHERE, Detail, Place
from streams.projected import LogReader
from tests.support.stores import START, START_US

TOPICS = Topics()
NOW_MS = 1_800_000_000_000


class Message:
    """A Kafka record, as far as the reader looks at it."""

    def __init__(self, offset: int, value: bytes | None, headers: Any = None, stamp_ms: int = START_US // 1000) -> None:
        self._parts = (offset, value, headers, stamp_ms)

    def offset(self) -> int:
        return self._parts[0]

    def value(self) -> bytes | None:
        return self._parts[1]

    def headers(self) -> Any:
        return self._parts[2]

    def timestamp(self) -> tuple[int, int]:
        return 1, self._parts[3]


@pytest.fixture
def reader(codec: Codec) -> LogReader:
    return LogReader(codec, TOPICS, lambda: NOW_MS)


def read(reader: LogReader, topic: str, *messages: Message, position: int = 0) -> Changes:
    partition = Partition(topic, 0)
    return reader.changes([(partition, messages)], {partition: position})


def ref(**changes: Any) -> ImageRef:
    values = {"id": "i1", "uri": "file:///a.jpg", "tenant": "acme", "submitted_at": START}
    return ImageRef(**{**values, **changes})


def test_a_request_is_read_whole(reader: LogReader, codec: Codec) -> None:
    asked = DetectParameters(confidence=0.3, iou=None, max_detections=5, classes=(0, 2))
    value = codec.encode(ref(parameters=asked, lane=Lane.BULK, sha256="ab", model="codes@1", attributes={"a": "b"}))
    (record,) = read(reader, TOPICS.bulk, Message(7, value)).submissions
    assert record.parameters == '{"confidence":0.3,"max_detections":5,"classes":[0,2]}'
    assert (record.lane, record.sha256, record.model, record.attributes) == ("bulk", "ab", "codes@1", '{"a":"b"}')
    assert (record.submitted_us, record.source, record.detail) == (START_US, Place("images.bulk", 0, 7), Detail.REQUEST)
    assert record.redriven_offset == NOT_REDRIVEN


@pytest.mark.parametrize(
    ("header", "offset"),
    [(b"dead-letters:0:41", 41), (b"41", 41), (b"", -1), (None, -1), (b"dead-letters:0:x", -1), (b"9" * 30, -1)],
)
def test_a_redrive_names_its_letter(reader: LogReader, codec: Codec, header: bytes | None, offset: int) -> None:
    message = Message(7, codec.encode(ref()), [("other", b"1"), ("redrive.of", header)])
    assert [one.redriven_offset for one in read(reader, TOPICS.online, message).submissions] == [offset]


def test_a_result_is_read_with_its_best_scores(reader: LogReader, codec: Codec) -> None:
    boxes = tuple(
        Detection(label=label, class_id=1, score=score, x1=1.234, y1=2, x2=3, y2=float("inf"))
        for label, score in (("dog", 0.5), ("dog", 0.75), ("cat", float("nan")))
    )
    result = DetectionResult(id="r1", image_id="i1", uri="u", tenant="acme", detections=boxes, completed_at=START)
    (record,) = read(reader, TOPICS.detections, Message(0, codec.encode(result))).completions
    assert record.scores == {"dog": 0.75, "cat": 0.0}
    assert record.detections.startswith('[{"label":"dog","class_id":1,"score":0.5,"box":[1.23,2.0,3.0,0.0]},')
    assert (record.submission.id, record.submission.detail) == ("i1", Detail.RESULT)


def test_a_dead_letter_brings_the_request_along(reader: LogReader, codec: Codec) -> None:
    letter = DeadLetter(
        code="image_corrupt",
        message="a\0b",
        stage="decode",
        image_id="i1",
        tenant="acme",
        value=codec.encode(ref(key="door")),
        headers=(Header(name="redrive.of", value=b"dead-letters:0:3"),),
        source_topic="images.online",
        source_offset=9,
        failed_at=START + timedelta(seconds=1),
    )
    (record,) = read(reader, TOPICS.dead_letters, Message(5, codec.encode(letter))).losses
    assert (record.offset, record.message, record.failed_us) == (5, "a\ufffdb", START_US + 1_000_000)
    image = record.submission
    assert (image.key, image.detail, image.redriven_offset) == ("door", Detail.REQUEST, 3)
    assert image.source == Place("images.online", 0, 9)


def test_a_silent_replay_leaves_its_results_and_nothing_else(reader: LogReader, codec: Codec) -> None:
    silent = codec.encode(ref(silent=True, replay_id="r"))
    assert not read(reader, TOPICS.bulk, Message(0, silent)).submissions
    letter = DeadLetter(code="image_corrupt", message="", stage="decode", image_id="i1", tenant="acme", value=silent)
    assert not read(reader, TOPICS.dead_letters, Message(0, codec.encode(letter))).losses
    result = DetectionResult(
        id="r1", image_id="i1", uri="u", tenant="acme", source_topic="images.bulk", source_offset=7, silent=True
    )
    (record,) = read(reader, TOPICS.detections, Message(0, codec.encode(result))).completions
    assert record.silent
    assert (record.submission.detail, record.submission.source) == (Detail.SILENT, NOWHERE)


@pytest.mark.parametrize("value", [None, b"", b"\x00\x00\x00\x00\x01broken"])
def test_a_dead_letter_without_its_record_still_names_the_image(
    reader: LogReader, codec: Codec, value: bytes | None
) -> None:
    letter = DeadLetter(code="c", message="m", stage="s", image_id="i1", tenant="acme", value=value)
    nameless = DeadLetter(code="c", message="m", stage="parquet", value=value)
    messages = (Message(0, codec.encode(letter)), Message(1, codec.encode(nameless)), Message(2, None))
    changes = read(reader, TOPICS.dead_letters, *messages)
    assert [(one.submission.id, one.submission.detail) for one in changes.losses] == [("i1", Detail.IDS)]
    assert reader.rejected == 0


@pytest.mark.parametrize(
    "bad", [{"id": ""}, {"id": "x" * 513}, {"tenant": "t" * 129}, {"key": "a\0"}, {"batch_id": "\N{SNOWMAN}" * 171}]
)
def test_names_that_no_index_takes_cost_their_record_alone(
    reader: LogReader, codec: Codec, bad: dict[str, Any]
) -> None:
    values = [codec.encode(ref(id="before")), codec.encode(ref(**bad)), codec.encode(ref(id="after"))]
    changes = read(reader, TOPICS.online, *(Message(at, value) for at, value in enumerate(values)))
    assert [one.id for one in changes.submissions] == ["before", "after"]
    assert reader.rejected == 1
    assert changes.advances == (Advance(Partition(TOPICS.online, 0), 0, 3, START_US),)


def test_bytes_that_are_no_record_cost_no_other(reader: LogReader, codec: Codec) -> None:
    good = codec.encode(Deletion(image_id="i1", tenant="acme"))
    values = [b"", b"\x00\x00\x00\x00\x63x", codec.encode(Batch(id="b1")), None, good]
    changes = read(reader, TOPICS.deletions, *(Message(at, value) for at, value in enumerate(values)))
    assert [one.image_id for one in changes.deletions] == ["i1"]
    assert reader.rejected == 3


def test_what_the_store_has_is_not_read_again(reader: LogReader, codec: Codec) -> None:
    partition = Partition(TOPICS.online, 0)
    first = [Message(at, codec.encode(ref(id=f"i{at}"))) for at in range(4)]
    later = [Message(at, codec.encode(ref(id=f"i{at}"))) for at in range(3, 6)]
    changes = reader.changes([(partition, first), (partition, later)], {partition: 2})
    assert [one.id for one in changes.submissions] == ["i2", "i3", "i4", "i5"]
    assert [(step.before, step.after) for step in changes.advances] == [(2, 6)]
    assert reader.changes([(partition, first)], {partition: 6}).advances == ()


def test_a_record_without_a_time_was_seen_now(reader: LogReader, codec: Codec) -> None:
    changes = read(reader, TOPICS.online, Message(0, codec.encode(ref()), stamp_ms=-1))
    assert changes.submissions[0].seen_us == changes.advances[0].read_us == NOW_MS * 1000
