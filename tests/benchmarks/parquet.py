"""Both sides of the Parquet benchmark: the sink as it is, and the same sink fed by fastavro row by row.

`tests.benchmarks.lake` lets them take turns. Each runs the whole delivery (consumer group, decode, claims, fsync, commit) from the
beginning of the topic into a new lake.
"""

import io
import shutil
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import fastavro
import numpy as np
import pyarrow as pa

from producers.publisher import Publisher
from schemas import avro_files
from schemas.arrow import DETECTION_RESULT
from schemas.codec import Codec, DecodedRun, PackagedSchemas, RunType
from schemas.connection import KafkaConnection
from schemas.records import Detection, DetectionResult
from schemas.topics import Topics
from sinks.parquet import ParquetPolicy, ParquetSink
from sinks.parquet_verify import verify
from streams.deliver import Delivery, DeliveryPolicy
from streams.membership import MembershipPolicy

SIDES = ("arrow", "fastavro")


class RowByRow(Codec):
    """The reference: fastavro makes a dict of each record, and Arrow a table of the dicts."""

    def decode_run(self, values: Sequence[bytes | None], record: RunType) -> DecodedRun:
        schema = self._schema(avro_files.text(avro_files.current(record.__name__)))
        rows = [fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None) for value in values if value]
        table = pa.Table.from_pylist(rows, DETECTION_RESULT)
        return DecodedRun(table.combine_chunks().to_batches()[0], np.arange(len(values), dtype=np.int32))


def measure(connection: KafkaConnection, topics: Topics, side: str, rows: int, work: Path) -> tuple[float, float]:
    """Rows per second of one side over the whole topic, once, and microseconds of CPU a row (all threads)."""
    codec = (Codec if side == "arrow" else RowByRow)(PackagedSchemas())
    lake, stop = work / uuid.uuid4().hex, threading.Event()
    with Publisher(connection, codec, topics) as publisher:
        sink = ParquetSink(ParquetPolicy(directory=lake, max_age_s=3600.0))
        delivery = Delivery(
            connection, publisher, sink, DeliveryPolicy(stage="parquet"), MembershipPolicy(group=lake.name)
        )
        delivery.poll(0.2)
        while len(delivery.positions) < 4:  # joining the group is not what is measured
            delivery.poll(0.0)
        began, cpu = time.perf_counter(), time.process_time()
        while sum(delivery.positions.values()) + sink.buffered_rows < rows:
            delivery.poll(0.2)
        stop.set()
        delivery.run(stop)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    report = verify(lake)
    assert not report.violations
    assert sum(chain.rows for chain in report.chains) == rows
    shutil.rmtree(lake)
    return rows / took, cpu / rows * 1e6


def fill(connection: KafkaConnection, topics: Topics, rows: int) -> None:
    """Results with one box each, spread over the partitions of the topic."""
    codec = Codec(PackagedSchemas())
    box = Detection(label="person", class_id=0, score=0.87, x1=10.5, y1=20.5, x2=110.5, y2=220.5)
    one = DetectionResult(
        id="0" * 32, image_id="", uri="s3://bucket/camera/2026/01/01/image-000000.jpg", detections=(box,)
    )
    template = codec.decode_run([codec.encode(one)], DetectionResult).batch
    problems: list[str] = []
    with Publisher(connection, codec, topics) as publisher:
        for start in range(0, rows, 5_000):
            count = min(5_000, rows - start)
            ids = pa.array([uuid.uuid4().hex for _ in range(count)])
            batch = (
                pa.Table.from_batches([template])
                .take(pa.array(np.zeros(count, np.int64)))
                .combine_chunks()
                .to_batches()[0]
            )
            for name in ("id", "image_id"):
                batch = batch.set_column(batch.schema.get_field_index(name), batch.schema.field(name), ids)
            keys = [b"%d" % (start + at) for at in range(count)]
            publisher.send_run(
                topics.detections,
                keys,
                codec.encode_run(batch, DetectionResult),
                lambda error, _: problems.append(str(error)) if error else None,
            )
        publisher.flush(60)
    assert not problems, problems[0]
