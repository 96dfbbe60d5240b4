"""One record <-> its bytes."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import FRAME, Codec, PackagedSchemas
from schemas.errors import Reason, RejectedError
from schemas.records import DeadLetter, DetectionResult, ImageRef
from tests.support.records import RECORDS, AnyRecord

CODEC = Codec(PackagedSchemas())
REF = CODEC.encode(ImageRef(id="a", uri="file:///a.jpg"))


@given(st.one_of(*RECORDS.values()))
@settings(deadline=None)
def test_a_record_comes_back_as_it_was(record: AnyRecord) -> None:
    kind: Any = type(record)
    assert CODEC.decode(CODEC.encode(record), kind) == record


@pytest.mark.parametrize(("record", "number"), [("DeadLetter", 3), ("ImageRef", 9), ("DetectionResult", 10)])
def test_without_a_registry_ids_are_places_in_the_packaged_order(record: str, number: int) -> None:
    assert CODEC.frame(record) == b"\x00" + number.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.AVRO_UNREADABLE),
        (b"", Reason.AVRO_UNREADABLE),
        (b"\x00\x00\x00\x00", Reason.AVRO_UNREADABLE),
        (b"\x01" + REF[1:], Reason.AVRO_UNREADABLE),
        (b'{"id": "a"}', Reason.AVRO_UNREADABLE),
        (REF[:5], Reason.AVRO_UNREADABLE),
        (REF[:-1], Reason.AVRO_UNREADABLE),
        (REF + b"\x00", Reason.AVRO_UNREADABLE),
        (FRAME.pack(0, 0) + REF[5:], Reason.SCHEMA_UNKNOWN),
        (FRAME.pack(0, 4711) + REF[5:], Reason.SCHEMA_UNKNOWN),
        (CODEC.encode(DetectionResult(id="r", image_id="a", uri="u")), Reason.AVRO_UNREADABLE),
        (CODEC.encode(DeadLetter(code="c", message="m", stage="s")), Reason.AVRO_UNREADABLE),
    ],
)
def test_what_is_no_reference_is_rejected_with_its_reason_in_few_words(value: bytes | None, reason: Reason) -> None:
    with pytest.raises(RejectedError) as caught:
        CODEC.decode(value, ImageRef)
    assert caught.value.reason is reason
    assert len(str(caught.value)) <= 300
    run = CODEC.decode_run([REF, value, REF], ImageRef)
    assert run.index.tolist() == [0, 2]
    assert [(at, error.reason) for at, error in run.rejected] == [(1, reason)]


@pytest.mark.parametrize("text", ["\ud800", 5, None])
def test_a_field_of_the_wrong_kind_is_not_encoded(text: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        CODEC.encode(ImageRef(id=text, uri="u"))  # type: ignore[arg-type]
