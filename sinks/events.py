"""What subscribers are told: one event per result or dead letter, rendered to JSON once, before anybody asks for it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.records import EPOCH, DeadLetter
from sinks.base import Partition, ResultRun
from sinks.box_columns import box_texts, rounded

_MILLISECOND = timedelta(milliseconds=1)
_quote = json.encoder.encode_basestring_ascii  # one C call; pure ASCII, so that characters are bytes


class Kind(StrEnum):
    """What became of an image."""

    RESULT = "result"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Subject:
    """What filters look at. `id` de-duplicates; `scores` maps each label found to its best score."""

    kind: Kind
    id: str
    tenant: str
    batch_id: str | None
    image_id: str
    key: str
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """One outcome. `body` is the rest of a JSON object that somebody else has opened: `"id":...}`, ASCII."""

    subject: Subject
    body: str


def result_events(run: ResultRun) -> list[Event]:
    """Events of a run of results, in offset order, made column by column; nobody is told of silent ones."""
    run = _told(run)
    batch = run.batch
    ids, images, tenants, keys, batches = (
        batch.column(name).to_pylist() for name in ("id", "image_id", "tenant", "key", "batch_id")
    )
    places = zip(run.offsets.tolist(), box_texts(batch.column("detections")), _rest(batch), strict=True)
    return [
        Event(
            Subject(
                kind=Kind.RESULT,
                id=ids[i],
                tenant=tenants[i],
                batch_id=batches[i],
                image_id=images[i],
                key=keys[i],
                scores=scores,
            ),
            f'"id":{_quote(ids[i])},"image_id":{_quote(images[i])},"tenant":{_quote(tenants[i])},'
            f'"batch_id":{_text(batches[i])},"key":{_quote(keys[i])},{rest},"detections":[{boxes}],'
            f'"partition":{run.partition.index},"offset":{offset}}}',
        )
        for i, (offset, (boxes, scores), rest) in enumerate(places)
    ]


def _told(run: ResultRun) -> ResultRun:
    """The run without its silent results; there are seldom any."""
    silent = run.batch.column("silent")
    if not pc.any(silent).as_py():
        return run
    told = pc.invert(silent)
    rows = told.to_numpy(zero_copy_only=False)
    return replace(run, batch=run.batch.filter(told), offsets=run.offsets[rows], timestamps_ms=run.timestamps_ms[rows])


def failure_event(letter: DeadLetter, partition: Partition, offset: int) -> Event:
    """The event of a dead letter. Its id is the failed record's place, code and attempts: the same failure written twice has one id."""
    identity = f"{letter.source_topic}/{letter.source_partition}/{letter.source_offset}/{letter.code}/{letter.attempts}"
    key = (letter.key or b"").decode("utf-8", "replace")
    fields = {
        "id": identity,
        "image_id": letter.image_id,
        "tenant": letter.tenant,
        "batch_id": letter.batch_id,
        "key": key,
        "code": letter.code,
        "message": letter.message,
        "stage": letter.stage,
        "attempts": letter.attempts,
        "failed_at_ms": (letter.failed_at - EPOCH) // _MILLISECOND,
        "partition": partition.index,
        "offset": offset,
    }
    subject = Subject(
        kind=Kind.FAILED,
        id=identity,
        tenant=letter.tenant,
        batch_id=letter.batch_id,
        image_id=letter.image_id,
        key=key,
        scores={},
    )
    return Event(subject, json.dumps(fields, separators=(",", ":"))[1:])


def _text(value: str | None) -> str:
    return "null" if value is None else _quote(value)


def _rest(batch: pa.RecordBatch) -> Iterator[str]:
    """For each row the fields that no filter looks at."""
    columns: Any = (
        *(batch.column(name).to_pylist() for name in ("uri", "lane", "model_name", "model_version", "model_digest")),
        *(batch.column(name).to_pylist() for name in ("image_width", "image_height")),
        *(_milliseconds(batch.column(name)) for name in ("submitted_at", "completed_at")),
        batch.column("attributes").to_pylist(),
        _timings(batch.column("timings")),
    )
    for uri, lane, name, version, digest, width, height, submitted, completed, attributes, timings in zip(
        *columns, strict=True
    ):
        yield (
            f'"uri":{_quote(uri)},"lane":{_quote(lane)},"model":{{"name":{_quote(name)},"version":{_quote(version)},'
            f'"digest":{_quote(digest)}}},"image_width":{width},"image_height":{height},"submitted_at_ms":{submitted},'
            f'"completed_at_ms":{completed},"timings":{timings},'
            f'"attributes":{json.dumps(dict(attributes)) if attributes else "{}"}'
        )


def _timings(column: pa.StructArray) -> Iterator[str]:
    """For each row the milliseconds of each stage, as JSON."""
    stages = [field.name for field in column.type]
    for values in zip(*(rounded(column.field(stage), 3) for stage in stages), strict=True):
        yield "{" + ",".join(f'"{stage}":{value}' for stage, value in zip(stages, values, strict=True)) + "}"


def _milliseconds(column: pa.Array) -> list[int]:
    milliseconds: list[int] = (column.cast(pa.int64()).to_numpy(zero_copy_only=False) // 1000).tolist()
    return milliseconds
