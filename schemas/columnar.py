"""Avro runs <-> Arrow batches through `pyruhvro`: each function answers None where only the record-by-record road can tell.

`pyruhvro` knows no framing and no schema resolution, accepts trailing bytes, fails a whole run for one bad value, and panics on `bytes`.
Its wheel may be missing for a Python: then everything here answers None and fastavro does the work.
"""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

try:
    import pyruhvro
except ImportError:  # pragma: no cover - a Python without its wheel
    pyruhvro = None


def decode(payloads: Sequence[bytes], schema: str) -> pa.RecordBatch | None:
    """The batch of unframed values written with `schema`, or None where not every one is exactly one record."""
    if pyruhvro is None:
        return None
    try:
        batch = pyruhvro.deserialize_array(payloads, schema)
        again = pyruhvro.serialize_record_batch(batch, schema, 1)[0]
    except BaseException as error:
        if not _is_its_own(error):
            raise
        return None
    # Trailing bytes are the one defect it does not see. Whatever it writes back shorter is left to the reference.
    return batch if _bytes_in(again) == sum(map(len, payloads)) else None


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
    framed: list[bytes] = pc.binary_join_element_wise(
        pa.scalar(frame, pa.binary()), values, pa.scalar(b"", pa.binary())
    ).to_pylist()
    return framed


def decode_as(
    payloads: Sequence[bytes], writer: str, reader: dict[str, Any], schema: pa.Schema
) -> pa.RecordBatch | None:
    """Values of another writer's schema as the reader's batch: missing columns get defaults, unknown ones go.

    None where a column changed its type or has an alias: those resolutions are fastavro's.
    """
    written = decode(payloads, writer)
    if written is None:
        return None
    columns = []
    for field, avro in zip(schema, reader["fields"], strict=True):
        if field.name in written.schema.names:
            column = written.column(field.name)
            if not column.type.equals(field.type):
                return None
        elif "aliases" in avro or "aliases" in json.loads(writer):
            return None
        else:
            column = pa.array([_default(avro, field)] * len(payloads), field.type)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _default(avro: dict[str, Any], field: pa.Field) -> Any:
    """A JSON default as the Arrow value: maps are lists of pairs there."""
    return list(avro["default"].items()) if pa.types.is_map(field.type) else avro["default"]


def _is_its_own(error: BaseException) -> bool:
    """Whether an error is pyruhvro's: its Rust panics come as a BaseException that no import can name."""
    return (
        isinstance(error, ValueError | TypeError | RuntimeError | pa.ArrowException)
        or type(error).__name__ == "PanicException"
    )


def _bytes_in(values: pa.BinaryArray) -> int:
    return int(pc.sum(pc.binary_length(values)).as_py() or 0)
