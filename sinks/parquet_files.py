"""What a file of the lake is: its columns, its footer, its name."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas import avro_files
from schemas.arrow import DETECTION_RESULT
from sinks.base import Partition, ResultRun

NO_DATE = -1  # the day of a record without a timestamp
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_MS_A_DAY = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UTC = pa.timestamp("us", "UTC")

# Few different values, or the same ones again and again: worth a dictionary. Ids, URIs and numbers are not.
_DICTIONARY = [
    *("tenant", "batch_id", "lane", "model_name", "model_version", "model_digest", "backend", "precision", "device"),
    *("source_topic", "kafka_topic", "detections.list.element.label", "attributes.key_value.key"),
]


def _instants(field: pa.Field) -> pa.Field:
    return field.with_type(_UTC) if pa.types.is_timestamp(field.type) else field


_RESULT = pa.schema([_instants(field) for field in DETECTION_RESULT])

SCHEMA: pa.Schema = pa.schema(
    [
        *_RESULT,
        pa.field("kafka_topic", pa.string(), nullable=False),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("kafka_offset", pa.int64(), nullable=False),
        pa.field("kafka_timestamp", pa.timestamp("ms", "UTC")),
    ]
)
"""Columns of a file: those of `DETECTION_RESULT`, and where in Kafka the record lies. The Hive column `date` is in the path."""


def days(timestamps_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Days since 1970 (UTC) of record timestamps, NO_DATE for those that are missing."""
    return np.maximum(timestamps_ms, NO_DATE) // _MS_A_DAY


def to_batch(run: ResultRun) -> pa.RecordBatch:
    """The rows of a run in the columns of a file."""
    rows = len(run.offsets)
    timestamps = pa.array(run.timestamps_ms, pa.timestamp("ms", "UTC"), mask=run.timestamps_ms < 0)
    columns = [
        column.cast(_UTC) if pa.types.is_timestamp(column.type) else column
        for column in (run.batch.column(name) for name in DETECTION_RESULT.names)
    ]
    place = [
        pa.repeat(pa.scalar(run.partition.topic), rows),
        pa.repeat(pa.scalar(run.partition.index, pa.int32()), rows),
        pa.array(run.offsets, pa.int64()),
        timestamps,
    ]
    return pa.RecordBatch.from_arrays([*columns, *place], schema=SCHEMA)


def encode(batches: Sequence[pa.RecordBatch], footer: Mapping[str, str]) -> pa.Buffer:
    """A whole file in memory: one row group, zstd."""
    out = pa.BufferOutputStream()
    table = pa.Table.from_batches(batches, SCHEMA)
    with pq.ParquetWriter(out, SCHEMA, compression="zstd", compression_level=1, use_dictionary=_DICTIONARY) as writer:
        writer.write_table(table, row_group_size=max(table.num_rows, 1))
        writer.add_key_value_metadata(dict(footer))
    return out.getvalue()


def footer(
    partition: Partition, offsets: tuple[int, int], rows: int, *, duplicates: int, writer_id: str
) -> dict[str, str]:
    """What a file says of itself. `offsets`: of its first and last row."""
    return {
        "kafka.topic": partition.topic,
        "kafka.partition": str(partition.index),
        "kafka.first_offset": str(offsets[0]),
        "kafka.last_offset": str(offsets[1]),
        "kafka.record_count": str(rows),
        "kafka.duplicates": str(duplicates),
        "schema.subject": f"{partition.topic}-value",
        "schema.version": avro_files.current("DetectionResult").rpartition(".v")[2],
        "writer.id": writer_id,
    }


def date_text(day: int) -> str:
    """The Hive value of a day."""
    return _HIVE_NULL if day == NO_DATE else (_EPOCH + timedelta(days=day)).date().isoformat()


def file_name(partition: Partition, day: int, first: int, last: int) -> str:
    """Path of a file within the lake, the same whoever writes it."""
    return f"date={date_text(day)}/{partition.topic}+{partition.index}+{first:020d}-{last:020d}.parquet"
