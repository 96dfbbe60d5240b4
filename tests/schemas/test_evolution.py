"""Versions of schemas: the packaged ones keep the rules, broken ones are told, and two releases read each other's records."""

import io
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import fastavro
import pytest

from schemas import arrow, avro_files, columnar
from schemas.codec import FRAME, Codec, PackagedSchemas
from schemas.evolution import problems
from schemas.records import EPOCH, ImageRef, Lane

Schema = dict[str, Any]


@pytest.mark.parametrize("version", avro_files.ORDER)
def test_every_packaged_version_keeps_the_rules_against_all_older_ones(version: str) -> None:
    names = avro_files.versions(version.rpartition(".")[0])
    older = [avro_files.parsed(name) for name in names[: names.index(version)]]
    assert problems(avro_files.parsed(version), older) == []


def test_versions_are_numbered_and_every_file_has_its_place() -> None:
    for record in {name.rpartition(".")[0] for name in avro_files.ORDER}:
        versions = avro_files.versions(record)
        assert versions == tuple(f"{record}.v{number}" for number in range(1, len(versions) + 1))


def field(schema: Schema, name: str) -> Schema:
    return next(entry for entry in schema["fields"] if entry["name"] == name)


def today() -> Schema:
    return deepcopy(avro_files.parsed(avro_files.current("ImageRef")))


def tomorrow() -> Schema:
    """A next version: `priority` is new, `sha256` is gone."""
    schema = today()
    schema["fields"] = [entry for entry in schema["fields"] if entry["name"] != "sha256"]
    schema["fields"].insert(2, {"name": "priority", "type": "int", "default": 5})
    return schema


def grown() -> Schema:
    schema = today()
    field(schema, "lane")["type"]["symbols"].append("idle")
    return schema


BREAKS: dict[str, Callable[[Schema], object]] = {
    "every field has a default": lambda s: s["fields"].append({"name": "size", "type": "long"}),
    "keeps its type": lambda s: field(s, "uri").update(type="bytes"),
    "no bytes": lambda s: s["fields"].append({"name": "raw", "type": "bytes", "default": ""}),
    "no uuid": lambda s: s["fields"].append(
        {"name": "u", "type": {"type": "string", "logicalType": "uuid"}, "default": ""}
    ),
    "grows only at its end": lambda s: field(s, "lane")["type"]["symbols"].insert(0, "urgent"),
    "default symbol": lambda s: field(s, "lane")["type"].pop("default"),
    "the only union": lambda s: s["fields"].append({"name": "x", "type": ["null", "int", "string"], "default": None}),
    "default of a union": lambda s: s["fields"].append({"name": "x", "type": ["null", "int"], "default": 3}),
    "namespace": lambda s: s.update(namespace="elsewhere"),
    "stands at the top": lambda s: field(s, "parameters")["type"]["fields"].append(
        {"name": "m", "type": {"type": "map", "values": "string"}, "default": {}}
    ),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_each_broken_rule_is_told(rule: str) -> None:
    schema = today()
    BREAKS[rule](schema)
    assert any(rule in problem for problem in problems(schema, [today()])), problems(schema, [today()])


@pytest.mark.parametrize("schema", [tomorrow(), grown()])
def test_a_field_may_come_or_go_and_an_enum_may_grow(schema: Schema) -> None:
    assert problems(schema, [today()]) == []


class Versions(PackagedSchemas):
    """The packaged schemas, and another release's under the id 99."""

    def __init__(self, other: Schema) -> None:
        self.other = json.dumps(other)

    def schema_of(self, schema_id: int) -> str:
        return self.other if schema_id == 99 else super().schema_of(schema_id)


def written(schema: Schema, **values: object) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {"id": "a", "uri": "u", **values})
    return FRAME.pack(0, 99) + out.getvalue()


def test_today_reads_tomorrows_records_and_in_columns() -> None:
    codec, old = Codec(Versions(tomorrow())), ImageRef(id="b", uri="u", sha256="ab")
    values = [
        written(tomorrow(), priority=1, attributes={"k": "v"}),
        codec.encode(old),
        written(tomorrow(), lane="bulk"),
    ]
    run = codec.decode_run(values, ImageRef)
    assert run.index.tolist() == [0, 1, 2]
    assert run.batch.schema.equals(arrow.IMAGE_REF)
    new = ImageRef(id="a", uri="u", attributes={"k": "v"}, submitted_at=EPOCH)
    expected = [new, old, ImageRef(id="a", uri="u", lane=Lane.BULK)]
    assert codec.encode_run(run.batch, ImageRef) == [codec.encode(record) for record in expected]
    assert [codec.decode(value, ImageRef) for value in values] == expected
    payloads = [values[0][5:], values[2][5:]]
    batch = columnar.decode_as(
        payloads, json.dumps(tomorrow()), avro_files.text(avro_files.current("ImageRef")), arrow.IMAGE_REF
    )
    assert batch is not None
    assert batch.num_rows == 2


def test_tomorrow_reads_todays_records() -> None:
    value = Codec(PackagedSchemas()).encode(ImageRef(id="a", uri="u", sha256="ab"))
    packaged, next_one = avro_files.text(avro_files.current("ImageRef")), json.dumps(tomorrow())
    row: Any = fastavro.schemaless_reader(
        io.BytesIO(value[5:]), fastavro.parse_schema(today()), fastavro.parse_schema(tomorrow())
    )
    assert row["priority"] == 5
    assert "sha256" not in row
    batch = columnar.decode_as([value[5:]], packaged, next_one, arrow.schema_of(tomorrow()))
    assert batch is not None
    assert batch.column("priority").to_pylist() == [5]
    assert batch.column("id").to_pylist() == ["a"]


def test_a_symbol_that_today_does_not_know_is_its_default() -> None:
    codec = Codec(Versions(grown()))
    values = [written(grown(), lane="idle"), written(grown(), lane="bulk")]
    assert [codec.decode(value, ImageRef).lane for value in values] == [Lane.ONLINE, Lane.BULK]
    assert codec.decode_run(values, ImageRef).batch.column("lane").to_pylist() == ["online", "bulk"]


@pytest.mark.parametrize(
    "other", ['"string"', "{", "[]", '{"type": "record", "name": "X", "fields": [{"name": "id"}]}']
)
def test_a_writers_schema_that_is_none_costs_its_values_only(other: str) -> None:
    schemas = Versions({})
    schemas.other = other
    codec = Codec(schemas)
    whole = codec.encode(ImageRef(id="a", uri="u"))
    run = codec.decode_run([whole, FRAME.pack(0, 99) + whole[5:]], ImageRef)
    assert run.index.tolist() == [0]
    assert [at for at, _ in run.rejected] == [1]
