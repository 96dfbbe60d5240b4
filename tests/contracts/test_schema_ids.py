"""What everybody who hands out schema ids keeps: the packaged order, and a real registry."""

import json
import uuid
from collections.abc import Callable
from typing import Any, get_args

import pytest

from infra.registry import RegistrySchemas
from infra.sections import RegistrySettings
from schemas import avro_files
from schemas.codec import FRAME, Codec, PackagedSchemas, SchemaIds
from schemas.errors import Reason, RejectedError
from schemas.records import DeadLetter, DetectionResult, ImageRef
from schemas.topics import Topics
from tests.support.records import AnyRecord
from tests.support.results import result

REF = ImageRef(id="a", uri="file:///a.jpg", attributes={"site": "north"})
RECORDS = (REF, result(), DeadLetter(code="x", message="y", stage="z", value=b"\0"))
NAMES = [kind.__name__ for kind in get_args(AnyRecord)]

Open = Callable[[], SchemaIds]


@pytest.fixture(params=["packaged", pytest.param("registry", marks=pytest.mark.kafka)])
def opened(request: pytest.FixtureRequest) -> Open:
    """Makes another one, as another process would."""
    if request.param == "packaged":
        return PackagedSchemas
    registry = RegistrySettings(url=request.getfixturevalue("registry_url"), timeout_s=60)
    own = Topics(f"t{uuid.uuid4().hex[:10]}.")
    return lambda: RegistrySchemas(registry, own, sleep=lambda _: None)


def test_each_record_has_an_id_of_its_own_and_it_stands_for_the_newest_schema(opened: Open) -> None:
    schemas = opened()
    assert len({schemas.id_of(name) for name in NAMES}) == len(NAMES)
    for name in NAMES:
        assert json.loads(schemas.schema_of(schemas.id_of(name))) == avro_files.parsed(avro_files.current(name))


def test_all_processes_have_the_same_ids(opened: Open) -> None:
    first, second = opened(), opened()
    assert [first.id_of(name) for name in NAMES] == [second.id_of(name) for name in NAMES]


def test_an_id_fits_into_the_frame(opened: Open) -> None:
    schemas = opened()
    for name in NAMES:
        assert FRAME.unpack(FRAME.pack(0, schemas.id_of(name))) == (0, schemas.id_of(name))


@pytest.mark.parametrize("schema_id", [0, 2**31 - 1])
def test_an_id_that_nobody_gave_is_rejected(opened: Open, schema_id: int) -> None:
    schemas = opened()
    for _ in range(2):
        with pytest.raises(RejectedError) as caught:
            schemas.schema_of(schema_id)
        assert caught.value.reason is Reason.SCHEMA_UNKNOWN


def test_what_one_process_writes_another_reads(opened: Open) -> None:
    writer, reader = Codec(opened()), Codec(opened())
    for record in RECORDS:
        kind: Any = type(record)
        assert reader.decode(writer.encode(record), kind) == record


def test_a_run_goes_round_and_foreign_records_are_rejected_alone(opened: Open) -> None:
    writer, reader = Codec(opened()), Codec(opened())
    values = [writer.encode(record) for record in (REF, RECORDS[2], REF)]
    run = reader.decode_run(values, ImageRef)
    assert run.index.tolist() == [0, 2]
    assert [at for at, _ in run.rejected] == [1]
    assert writer.encode_run(run.batch, ImageRef) == [values[0], values[2]]
    assert reader.decode_run([writer.encode(RECORDS[1])], DetectionResult).batch.num_rows == 1
