"""The same records as Arrow columns: what a run of them is, from Kafka to Parquet."""

from typing import Any

import pyarrow as pa

from schemas import avro_files

_PRIMITIVES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "bytes": pa.binary(),
    "enum": pa.string(),
}


def _data_type(avro: Any, *, in_list: bool = False) -> pa.DataType:
    """Arrow type of an Avro type exactly as `pyruhvro` gives it: naive UTC microseconds, enums as strings, nullable within lists."""
    if isinstance(avro, str):
        return _PRIMITIVES[avro]
    if avro.get("logicalType") == "timestamp-micros":
        return pa.timestamp("us")
    if avro["type"] == "record":
        return pa.struct([_field(f, in_list=in_list) for f in avro["fields"]])
    if avro["type"] == "array":
        return pa.list_(pa.field("item", _data_type(avro["items"], in_list=True)))
    if avro["type"] == "map":
        return pa.map_(pa.string(), pa.field("value", _data_type(avro["values"]), nullable=False))
    return _PRIMITIVES[avro["type"]]


def _field(avro: dict[str, Any], *, in_list: bool = False) -> pa.Field:
    kind = avro["type"]
    optional = isinstance(kind, list)
    data_type = _data_type(kind[1] if optional else kind, in_list=in_list)
    return pa.field(avro["name"], data_type, nullable=optional or in_list)


def schema_of(avro: dict[str, Any]) -> pa.Schema:
    """Arrow schema of an Avro record whose only unions are `["null", T]`."""
    return pa.schema([_field(f) for f in avro["fields"]])


IMAGE_REF: pa.Schema = schema_of(avro_files.parsed(avro_files.current("ImageRef")))
DETECTION_RESULT: pa.Schema = schema_of(avro_files.parsed(avro_files.current("DetectionResult")))
