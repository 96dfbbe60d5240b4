"""Avro runs <-> Arrow batches through `pyruhvro`: each function answers None where only the record-by-record road can tell.

`pyruhvro` knows no framing and no schema resolution, takes any bytes for a string, accepts trailing bytes, wraps numbers beyond 32 bits
round, writes an empty value for a null where the schema has none, fails a whole run for one bad value, and panics on `bytes`. Its
wheel may be missing for a Python: then everything here answers None and fastavro does the work.
"""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

try:
    import pyruhvro
except ImportError:  # pragma: no cover - a Python without its wheel
    pyruhvro = None

# The first and the last microsecond that `datetime` has.
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
_SHAPE = ("type", "name", "symbols", "items", "values", "fields", "logicalType", "size", "precision", "scale")


def decode(payloads: Sequence[bytes], schema: str) -> pa.RecordBatch | None:
    """The batch of unframed values written with `schema`, or None where not every one is exactly one record."""
    if pyruhvro is None:
        return None
    try:
        batch = pyruhvro.deserialize_array(payloads, schema)
        batch.validate(full=True)  # it lets any bytes be a string
        again = pyruhvro.serialize_record_batch(batch, schema, 1)[0]
    except BaseException as error:
        if not _is_its_own(error):
            raise
        return None
    # What it does not see, trailing bytes and numbers wrapped round, it does not write back as it was.
    same = again.equals(pa.array(payloads, pa.binary()))
    return batch if same and all(map(_is_sound, batch.columns)) else None


def encode(batch: pa.RecordBatch, schema: str, frame: bytes) -> list[bytes] | None:
    """Framed values of a batch, or None where the batch cannot be encoded this way."""
    if pyruhvro is None:
        return None
    try:
        values = pyruhvro.serialize_record_batch(batch, schema, 1)[0]
    except BaseException as error:
        if not _is_its_own(error):
            raise
        return None
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    if any(_lacks_a_value(columns[name], kind) for name, kind in _types(schema).items()):
        return None
    framed: list[bytes] = pc.binary_join_element_wise(
        pa.scalar(frame, pa.binary()), values, pa.scalar(b"", pa.binary())
    ).to_pylist()
    return framed


def decode_as(payloads: Sequence[bytes], writer: str, reader: str, schema: pa.Schema) -> pa.RecordBatch | None:
    """Values of another writer's schema as the reader's batch: missing columns get defaults, unknown ones go.

    None where the record has another name, or a field another type (an enum that grew, say) or an alias: those are fastavro's to resolve.
    """
    if not _is_plain_resolution(writer, reader):
        return None
    written = decode(payloads, writer)
    if written is None:
        return None
    defaults = {field["name"]: field.get("default") for field in _parsed(reader)["fields"]}
    columns = [
        written.column(field.name)
        if field.name in written.schema.names
        else pa.array([_arrow_value(defaults[field.name], field.type)] * len(payloads), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


@cache
def _is_plain_resolution(writer: str, reader: str) -> bool:
    """Whether each of the reader's fields is either the writer's, type for type, or missing there and has a default."""
    try:
        old, new = _parsed(writer), _parsed(reader)
    except Exception:  # noqa: BLE001 - whatever an unknown writer's schema leads the parser into; fastavro will say it again
        return False
    if not isinstance(old, dict) or old["type"] != "record" or old["name"] != new["name"]:
        return False
    types = {field["name"]: _shape(field["type"]) for field in old["fields"]}
    return all(
        types[field["name"]] == _shape(field["type"]) if field["name"] in types else "default" in field
        for field in new["fields"]
    ) and not any("aliases" in field for field in new["fields"])


@cache
def _parsed(schema: str) -> dict[str, Any]:
    """The schema with every name qualified."""
    parsed: dict[str, Any] = fastavro.parse_schema(json.loads(schema))
    return parsed


@cache
def _types(schema: str) -> dict[str, Any]:
    return {field["name"]: field["type"] for field in json.loads(schema)["fields"]}


def _shape(kind: Any) -> Any:
    """An Avro type without what does not change its bytes or its meaning."""
    if isinstance(kind, list):
        return [_shape(part) for part in kind]
    return {name: _shape(kind[name]) for name in _SHAPE if name in kind} if isinstance(kind, dict) else kind


def _is_sound(column: pa.Array) -> bool:
    """Whether every timestamp is one that `datetime` has, and no map has a key twice: elsewhere the two roads would differ."""
    if pa.types.is_timestamp(column.type):
        times = (column.drop_null() if column.null_count else column).view(pa.int64()).to_numpy()
        return bool(times.min(initial=0) >= _FIRST_US and times.max(initial=0) <= _LAST_US)
    if pa.types.is_map(column.type):
        sizes = np.diff(column.offsets.to_numpy())
        if sizes.max(initial=0) < 2:
            return True
        keys = column.keys.dictionary_encode()
        pairs = np.repeat(np.arange(len(sizes)), sizes) * len(keys.dictionary) + keys.indices.to_numpy()
        return len(np.unique(pairs)) == len(pairs)
    return True


def _lacks_a_value(column: pa.Array, kind: Any) -> bool:
    """Whether a null stands where the Avro type has none."""
    if isinstance(kind, list):
        return isinstance(kind[1], dict) and _lacks_a_value(column.drop_null(), kind[1])
    if column.null_count:
        return True
    if not isinstance(kind, dict):
        return False
    if kind["type"] == "record":
        return any(_lacks_a_value(column.field(field["name"]), field["type"]) for field in kind["fields"])
    return kind["type"] == "array" and _lacks_a_value(column.flatten(), kind["items"])


def _arrow_value(default: Any, kind: pa.DataType) -> Any:
    """A JSON default as the Arrow value: maps are lists of pairs there."""
    return list(default.items()) if pa.types.is_map(kind) else default


def _is_its_own(error: BaseException) -> bool:
    """Whether an error is pyruhvro's: its Rust panics come as a BaseException that no import can name."""
    return (
        isinstance(error, ValueError | TypeError | RuntimeError | pa.ArrowException)
        or type(error).__name__ == "PanicException"
    )
