"""Runs of records as Arrow batches say exactly what fastavro says record by record: the same rows, the same rejections, the same bytes."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyruhvro
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from schemas import arrow, avro_files, columnar
from schemas.codec import FRAME, Codec, DecodedRun, PackagedSchemas, RunType
from schemas.errors import Reason, RejectedError
from schemas.records import DeadLetter, Detection, DetectionResult, DetectParameters, ImageRef
from tests.support.records import RECORDS

CODEC = Codec(PackagedSchemas())
SCHEMAS: dict[RunType, pa.Schema] = {ImageRef: arrow.IMAGE_REF, DetectionResult: arrow.DETECTION_RESULT}
BOTH = pytest.mark.parametrize("record", [ImageRef, DetectionResult])
REF = ImageRef(id="a", uri="file:///a.jpg", parameters=DetectParameters(classes=(1, 2)), attributes={"k": "v"})
BOX = Detection(label="person", class_id=0, score=0.5, x1=1, y1=2, x2=3, y2=4)
RESULT = DetectionResult(id="r", image_id="a", uri="u", detections=(BOX, BOX), attributes={"k": "v"})
OFTEN = settings(deadline=None, max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])


@pytest.fixture(params=["pyruhvro", "fastavro"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With pyruhvro and without its wheel."""
    if request.param == "fastavro":
        monkeypatch.setattr(columnar, "pyruhvro", None)
    return str(request.param)


def verdicts(values: Sequence[bytes | None], record: Any) -> tuple[list[int], list[bytes], list[tuple[int, Reason]]]:
    """What the record-by-record road says: places and canonical bytes of the good, places and reasons of the bad."""
    good, encoded, bad = [], [], []
    for at, value in enumerate(values):
        try:
            decoded = CODEC.decode(value, record)
        except RejectedError as error:
            bad.append((at, error.reason))
        else:
            good.append(at)
            encoded.append(CODEC.encode(decoded))
    return good, encoded, bad


def assert_agrees(run: DecodedRun, values: Sequence[bytes | None], record: RunType) -> None:
    good, encoded, bad = verdicts(values, record)
    assert run.index.dtype == np.int32
    assert run.index.tolist() == good
    assert [(at, error.reason) for at, error in run.rejected] == bad
    assert run.batch.schema.equals(SCHEMAS[record])
    run.batch.validate(full=True)
    # Python's floats make every NaN a quiet one, so both sides must have been Python's.
    assert verdicts(CODEC.encode_run(run.batch, record), record)[1] == encoded


@st.composite
def damaged(draw: st.DrawFn) -> bytes | None:
    """A value that is whole, broken in one of many ways, or another's."""
    record = draw(st.sampled_from(list(RECORDS)))
    value = CODEC.encode(draw(RECORDS[record]))
    at = draw(st.integers(0, len(value) - 1))
    how = draw(st.sampled_from(["whole", "flip", "cut", "grow", "insert", "none", "frame", "noise"]))
    noise = draw(st.binary(min_size=1, max_size=12)) if how in {"flip", "grow", "insert", "noise"} else b"\x00"
    return {
        "whole": value,
        "flip": value[:at] + bytes([value[at] ^ noise[0]]) + value[at + 1 :],
        "cut": value[:at],
        "grow": value + noise,
        "insert": value[:at] + noise + value[at:],
        "none": None,
        "frame": FRAME.pack(0, draw(st.integers(0, 5))) + value[5:],
        "noise": FRAME.pack(0, draw(st.integers(1, 3))) + noise,
    }[how]


@BOTH
@given(data=st.data())
@OFTEN
def test_valid_runs_are_what_their_records_are(record: RunType, data: st.DataObject) -> None:
    records = data.draw(st.lists(RECORDS[record], max_size=5))
    values = [CODEC.encode(one) for one in records]
    run = CODEC.decode_run(values, record)
    assert_agrees(run, values, record)
    assert columnar.decode([value[5:] for value in values], _schema(record)) is not None
    start = data.draw(st.integers(0, len(values)))
    assert CODEC.encode_run(run.batch.slice(start), record) == values[start:]
    rows = pa.RecordBatch.from_pylist(run.batch.to_pylist(), schema=SCHEMAS[record])
    assert CODEC.encode_run(rows, record) == values


@BOTH
@given(values=st.lists(damaged(), max_size=5))
@OFTEN
def test_exactly_the_broken_values_are_rejected_and_order_is_kept(record: RunType, values: list[bytes | None]) -> None:
    assert_agrees(CODEC.decode_run(values, record), values, record)


@BOTH
@given(payload=st.binary(max_size=60))
@settings(deadline=None, max_examples=200)
def test_the_columnar_road_is_never_laxer_than_the_reference(record: Any, payload: bytes) -> None:
    if columnar.decode([payload], _schema(record)) is not None:
        CODEC.decode(CODEC.frame(record.__name__) + payload, record)


@BOTH
@given(values=st.lists(damaged(), max_size=6))
@settings(deadline=None, max_examples=30)
def test_without_the_wheel_everything_is_the_same(record: RunType, values: list[bytes | None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columnar, "pyruhvro", None)
        run = CODEC.decode_run(values, record)
        encoded = CODEC.encode_run(run.batch, record)
    assert encoded == CODEC.encode_run(run.batch, record)
    assert_agrees(run, values, record)


@pytest.mark.usefixtures("road")
def test_an_image_may_hold_a_thousand_boxes() -> None:
    values = [CODEC.encode(replace(RESULT, detections=(BOX,) * boxes)) for boxes in (0, 1, 1000, 63, 64)]
    assert_agrees(CODEC.decode_run(values, DetectionResult), values, DetectionResult)


@BOTH
@pytest.mark.usefixtures("road")
def test_an_empty_run_and_one_of_tombstones(record: RunType) -> None:
    assert_agrees(CODEC.decode_run([], record), [], record)
    assert_agrees(CODEC.decode_run([None, None], record), [None, None], record)


@pytest.mark.usefixtures("road")
def test_one_run_may_mix_records_and_schema_ids() -> None:
    letter = DeadLetter(code="c", message="m", stage="s", value=b"\x00", headers=())
    values = [CODEC.encode(one) for one in (REF, RESULT, REF, letter, REF)] + [None, b"", b"\x00\x00\x00\x00\x09"]
    assert_agrees(CODEC.decode_run(values, ImageRef), values, ImageRef)
    assert CODEC.decode_run(values, ImageRef).index.tolist() == [0, 2, 4]
    assert CODEC.decode_run(values, DetectionResult).index.tolist() == [1]


def ref_payload(
    *,
    most: bytes = b"\x02",
    submitted: bytes = b"\x00",
    attributes: bytes = b"\x00",
    id_: bytes = b"\x02a",
    classes: bytes = b"\x02\x02\x00",
) -> bytes:
    """An ImageRef by hand, so that it can hold what no encoder writes. `most` is `max_detections`."""
    parameters = b"\x00" + b"\x00" + b"\x02" + most + b"\x02" + classes
    replay = b"\x00\x00\x00"
    return id_ + b"\x02u" + b"\x00\x00\x00\x00\x00" + parameters + b"\x00" + submitted + b"\x00" + attributes + replay


OVER = b"\x80\x80\x80\x80\x10"  # 2**31: as long as the number that it wraps round to
FAR = b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"  # microseconds beyond the year 9999
TWICE = b"\x04" + b"\x02a\x02x" + b"\x02a\x02y" + b"\x00"


@pytest.mark.usefixtures("road")
@pytest.mark.parametrize(
    ("payload", "readable"),
    [
        (ref_payload(), True),
        (ref_payload(most=OVER), False),
        (ref_payload(classes=b"\x02" + OVER + b"\x00"), False),
        (ref_payload(submitted=FAR), False),
        (ref_payload(attributes=TWICE), True),  # the last one holds
        (ref_payload(attributes=b"\x01\x08\x02a\x02x\x00"), True),  # a block that says its size
        (ref_payload(classes=b"\x02\x02\x02\x04\x00"), True),  # two blocks
        (ref_payload(most=b"\x82\x00"), True),  # a number longer than it need be
        (ref_payload(id_=b"\x02\xff"), False),
        (ref_payload(id_=b"\x01"), False),  # a negative length
        (ref_payload() + b"\x00", False),
        (ref_payload()[:-1], False),
    ],
)
def test_bytes_that_no_encoder_of_ours_writes(payload: bytes, readable: bool) -> None:
    whole = CODEC.encode(REF)
    value = CODEC.frame("ImageRef") + payload
    run = CODEC.decode_run([whole, value, whole], ImageRef)
    assert_agrees(run, [whole, value, whole], ImageRef)
    assert run.index.tolist() == ([0, 1, 2] if readable else [0, 2])


@pytest.mark.usefixtures("road")
@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", pa.array([None], pa.string())),
        ("lane", pa.array(["no lane"])),
        ("submitted_at", pa.array([None], pa.timestamp("us"))),
        ("id", pa.array([7])),
    ],
)
def test_a_batch_that_breaks_the_schema_is_not_encoded(column: str, values: pa.Array) -> None:
    batch = CODEC.decode_run([CODEC.encode(REF)], ImageRef).batch
    broken = batch.set_column(batch.schema.get_field_index(column), column, values)
    with pytest.raises((ValueError, TypeError)):
        CODEC.encode_run(broken, ImageRef)


@pytest.mark.usefixtures("road")
def test_a_null_within_a_box_is_not_encoded() -> None:
    rows = CODEC.decode_run([CODEC.encode(RESULT)], DetectionResult).batch.to_pylist()
    rows[0]["detections"][1]["label"] = None
    with pytest.raises((ValueError, TypeError)):
        CODEC.encode_run(pa.RecordBatch.from_pylist(rows, schema=arrow.DETECTION_RESULT), DetectionResult)


@pytest.mark.usefixtures("road")
def test_columns_of_a_kindred_type_are_encoded_as_the_schema_says() -> None:
    values = [CODEC.encode(REF)] * 3
    batch = CODEC.decode_run(values, ImageRef).batch
    for column, kind in [
        ("id", pa.large_string()),
        ("submitted_at", pa.timestamp("us", "UTC")),
        ("submitted_at", pa.timestamp("us", "Europe/Berlin")),
        ("lane", pa.dictionary(pa.int32(), pa.string())),
    ]:
        place = batch.schema.get_field_index(column)
        other = batch.set_column(place, column, batch.column(column).cast(kind))
        assert CODEC.encode_run(other, ImageRef) == values, (column, kind)
    assert CODEC.encode_run(batch.select(batch.schema.names[::-1]), ImageRef) == values


def test_a_crash_of_the_fast_road_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_: object) -> None:
        raise PanicException

    values = [CODEC.encode(REF)]
    batch = CODEC.decode_run(values, ImageRef).batch
    for name in ("deserialize_array", "serialize_record_batch"):
        monkeypatch.setattr(pyruhvro, name, panic)
    assert_agrees(CODEC.decode_run(values, ImageRef), values, ImageRef)
    assert CODEC.encode_run(batch, ImageRef) == values


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_not_its_own_goes_through(monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]) -> None:
    def interrupted(*_: object) -> None:
        raise stop

    monkeypatch.setattr(pyruhvro, "deserialize_array", interrupted)
    with pytest.raises(stop):
        CODEC.decode_run([CODEC.encode(REF)], ImageRef)


def test_threads_share_a_codec() -> None:
    codec, start = Codec(PackagedSchemas()), threading.Barrier(4)
    values: list[bytes | None] = [CODEC.encode(REF), CODEC.encode(RESULT), None, CODEC.encode(REF)] * 20

    def work(_: int) -> list[list[int]]:
        start.wait(timeout=30)
        return [codec.decode_run(values, record).index.tolist() for record in (ImageRef, DetectionResult) for _ in "ab"]

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(work, range(4))
    assert first == [work_of(values, ImageRef)] * 2 + [work_of(values, DetectionResult)] * 2
    assert all(other == first for other in others)


def work_of(values: Sequence[bytes | None], record: RunType) -> list[int]:
    return verdicts(values, record)[0]


def _schema(record: RunType) -> str:
    return avro_files.text(avro_files.current(record.__name__))
