"""Results to put on a topic or into a sink, and the checker that compares a lake with its topic."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Message

from schemas.arrow import DETECTION_RESULT
from schemas.codec import Codec, PackagedSchemas
from schemas.records import Detection, DetectionResult, new_image_id
from sinks.base import Partition, ResultRun
from sinks.claims import LOG, ClaimLog
from sinks.disk import Disk
from sinks.parquet_verify import verify

CODEC = Codec(PackagedSchemas())
NOON = 1_767_225_600_000 + 43_200_000  # 2026-01-01 12:00 UTC
DAY = 86_400_000


def result(result_id: str | None = None, boxes: int = 1) -> DetectionResult:
    """A result with a fresh id, or with this one."""
    moment = datetime.fromtimestamp(NOON / 1000, UTC)
    return DetectionResult(
        id=new_image_id() if result_id is None else result_id,
        image_id=new_image_id(),
        uri="s3://shop/shelf.jpg",
        key="camera-7",
        model_name="yolov8n",
        image_width=640,
        image_height=480,
        detections=tuple(
            Detection(label="person", class_id=0, score=0.5, x1=1.0, y1=2.0, x2=3.0, y2=4.0 + at) for at in range(boxes)
        ),
        submitted_at=moment,
        completed_at=moment,
        attributes={"aisle": "7"},
    )


def batch_of(ids: Sequence[str]) -> pa.RecordBatch:
    """Results with these ids, as they come from the codec."""
    if not ids:
        return pa.RecordBatch.from_pylist([], schema=DETECTION_RESULT)
    return CODEC.decode_run([CODEC.encode(result(one)) for one in ids], DetectionResult).batch


def run_of(
    partition: Partition, first: int, ids: Sequence[str], *, at_ms: int | Sequence[int] = NOON, gap_after: int = 0
) -> ResultRun:
    """Results with these ids at the offsets from `first`, and `gap_after` offsets more without a record."""
    offsets = np.arange(first, first + len(ids), dtype=np.int64)
    stamps = np.broadcast_to(np.asarray(at_ms, np.int64), offsets.shape)
    return ResultRun(partition, first, first + len(ids) + gap_after, batch_of(ids), offsets, np.array(stamps))


def lake_rows(root: Path) -> list[tuple[str, int, int, str]]:
    """(topic, partition, offset, id) of every visible row, sorted."""
    rows: list[tuple[str, int, int, str]] = []
    for path in sorted(root.glob("date=*/*.parquet")):
        table = pq.ParquetFile(path).read(columns=["kafka_topic", "kafka_partition", "kafka_offset", "id"])
        rows += zip(*(column.to_pylist() for column in table.columns), strict=True)
    return sorted(rows)


def tip(root: Path, partition: Partition) -> int:
    """The next offset that the chain of a partition wants, 0 if there is no chain."""
    log = ClaimLog(root, partition, Disk())
    genesis = log.genesis()
    if genesis is None:
        return 0
    claims = log.tail()
    return claims[-1].next if claims else genesis.start


BROKEN = b"\x00\x00\x00\x00\x02broken"


def is_result(message: Message) -> bool:
    """Whether a record is neither a tombstone nor BROKEN."""
    return message.value() not in (None, BROKEN)


def expected_rows(messages: Sequence[Message]) -> list[tuple[str, int, int, str]]:
    """What a lake must hold of these records: the first of each id of a partition, nothing of what is no result."""
    seen: set[tuple[int, str]] = set()
    rows = []
    ordered = sorted(filter(is_result, messages), key=lambda one: (one.partition(), one.offset()))
    decoded = CODEC.decode_run([message.value() for message in ordered], DetectionResult)
    for at, found in zip(decoded.index.tolist(), decoded.batch.column("id").to_pylist(), strict=True):
        message = ordered[at]
        if (message.partition(), found) not in seen:
            seen.add((message.partition(), found))
            rows.append((message.topic(), message.partition(), message.offset(), found))
    return rows


def check_lake(root: Path, messages: Sequence[Message]) -> None:
    """Fails unless the lake is sound and holds exactly what it must hold of these records."""
    report = verify(root)
    assert not report.violations
    assert not report.pending
    assert lake_rows(root) == expected_rows(messages)
    for partition in {(message.topic(), message.partition()) for message in messages}:
        end = max(m.offset() for m in messages if (m.topic(), m.partition()) == partition) + 1
        assert tip(root, Partition(*partition)) == end


def has_chain(root: Path) -> bool:
    """Whether some partition was opened."""
    return (root / LOG).is_dir()
