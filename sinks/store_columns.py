"""Runs of the log, as Arrow batches and dead letters, taken apart into the store's records."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.moments import to_us
from schemas.records import DeadLetter, DetectParameters, ImageRef
from sinks.base import ResultRun
from sinks.box_columns import box_texts, rounded
from sinks.store_records import (
    NO_PLACE,
    NOT_REDRIVEN,
    NOWHERE,
    Completion,
    Detail,
    Loss,
    Place,
    Submission,
    attributes_text,
    clean,
    short,
)

_US_PER_MS = 1000
_SINGLE_DIGITS = 7  # what a 32-bit float holds: 0.3 is to be 0.3 again


def submissions(run: ResultRun, redriven: Sequence[int]) -> Iterator[Submission]:
    """Each reference of a run whose columns are those of `schemas.arrow.IMAGE_REF`; `redriven` as in `Submission`, one a row.

    Silent ones say nothing: nobody is to see that an image was replayed.
    """
    names = ("tenant", "id", "key", "batch_id", "lane", "uri", "sha256", "model")
    columns = (
        *(run.batch.column(name).to_pylist() for name in names),
        _parameters(run.batch.column("parameters")),
        map(attributes_text, run.batch.column("attributes").to_pylist()),
        _microseconds(run.batch.column("submitted_at")),
        run.offsets.tolist(),
        (run.timestamps_ms * _US_PER_MS).tolist(),
        redriven,
        run.batch.column("silent").to_pylist(),
    )
    topic, partition = run.partition.topic, run.partition.index
    for row in zip(*columns, strict=True):
        tenant, image, key, batch, lane, uri, sha256, model, parameters, attributes, submitted = row[:11]
        offset, seen, of, silent = row[11:]
        if silent:
            continue
        yield Submission(
            tenant=tenant,
            id=image,
            key=key,
            batch_id=batch,
            lane=lane,
            uri=clean(uri),
            sha256=sha256 and clean(sha256),
            model=model and clean(model),
            parameters=parameters,
            attributes=attributes,
            submitted_us=submitted,
            seen_us=seen,
            detail=Detail.REQUEST,
            source=Place(topic, partition, offset),
            redriven_offset=of,
        )


def completions(run: ResultRun) -> Iterator[Completion]:
    """Each result of a run."""
    batch = run.batch
    timings = batch.column("timings")
    texts = ("model_name", "model_version", "model_digest", "backend", "precision", "device")
    columns: tuple[Any, ...] = (
        _submissions_of_results(run),
        batch.column("id").to_pylist(),
        *(map(short, batch.column(name).to_pylist()) for name in texts),
        _microseconds(batch.column("completed_at")),
        batch.column("image_width").to_pylist(),
        batch.column("image_height").to_pylist(),
        *(rounded(timings.field(name), 3) for name in ("wait_ms", "fetch_ms", "decode_ms", "inference_ms")),
        box_texts(batch.column("detections")),
        batch.column("silent").to_pylist(),
    )
    for row in zip(*columns, strict=True):
        submission, result_id, name, version, digest, backend, precision, device, completed, width, height = row[:11]
        wait, fetch, decode, inference, (boxes, scores), silent = row[11:]
        yield Completion(
            submission=submission,
            id=result_id,
            completed_us=completed,
            model_name=name,
            model_version=version,
            model_digest=digest,
            backend=backend,
            precision=precision,
            device=device,
            width=width,
            height=height,
            wait_ms=wait,
            fetch_ms=fetch,
            decode_ms=decode,
            inference_ms=inference,
            detections=f"[{boxes}]",
            scores=scores,
            silent=silent,
        )


def loss(letter: DeadLetter, offset: int, read: Callable[[bytes], ImageRef | None], redrive_header: str) -> Loss | None:
    """A dead letter, or None for one that names no image, or is of a silent replay. `read` decodes the record that failed, where that goes.

    `redrive_header` names the header for `redriven_offset`.
    """
    if not letter.image_id:
        return None
    ref = read(letter.value) if letter.value else None
    if ref is not None and ref.silent:
        return None
    redriven = max(
        (redriven_offset(header.value) for header in letter.headers if header.name == redrive_header),
        default=NOT_REDRIVEN,
    )
    return Loss(
        submission=_submission_of_letter(letter, ref, redriven),
        offset=offset,
        code=clean(letter.code),
        message=clean(letter.message),
        stage=clean(letter.stage),
        attempts=letter.attempts,
        failed_us=to_us(letter.failed_at),
    )


def redriven_offset(header: bytes | None) -> int:
    """The offset in `TOPIC:PARTITION:OFFSET`, as a redrive writes it into the header of what it sends again."""
    tail = (header or b"").rpartition(b":")[2]
    return int(tail) if tail.isdigit() and len(tail) < 19 else NOT_REDRIVEN


def _submissions_of_results(run: ResultRun) -> Iterator[Submission]:
    batch = run.batch
    names = (
        "tenant",
        "image_id",
        "key",
        "batch_id",
        "lane",
        "uri",
        "source_topic",
        "source_partition",
        "source_offset",
    )
    columns = (
        *(batch.column(name).to_pylist() for name in names),
        map(attributes_text, batch.column("attributes").to_pylist()),
        _microseconds(batch.column("submitted_at")),
        (run.timestamps_ms * _US_PER_MS).tolist(),
        batch.column("silent").to_pylist(),
    )
    for tenant, image, key, batch_id, lane, uri, topic, partition, offset, attributes, submitted, seen, silent in zip(
        *columns, strict=True
    ):
        yield Submission(
            tenant=tenant,
            id=image,
            key=key,
            batch_id=batch_id,
            lane=lane,
            uri=clean(uri),
            attributes=attributes,
            submitted_us=submitted,
            seen_us=seen,
            detail=Detail.SILENT if silent else Detail.RESULT,
            source=NOWHERE if silent else Place(short(topic), partition, offset),
        )


def _submission_of_letter(letter: DeadLetter, ref: ImageRef | None, redriven: int) -> Submission:
    seen_us = to_us(letter.failed_at)
    if ref is None:
        return Submission(
            tenant=letter.tenant,
            id=letter.image_id,
            batch_id=letter.batch_id,
            submitted_us=letter.source_timestamp_ms * _US_PER_MS,
            seen_us=seen_us,
            detail=Detail.IDS,
            source=_source(letter),
            redriven_offset=redriven,
        )
    return Submission(
        tenant=ref.tenant,
        id=ref.id,
        key=ref.key,
        batch_id=ref.batch_id,
        lane=ref.lane,
        uri=clean(ref.uri),
        sha256=ref.sha256 and clean(ref.sha256),
        model=ref.model and clean(ref.model),
        parameters=parameters_text(ref.parameters),
        attributes=attributes_text(ref.attributes),
        submitted_us=to_us(ref.submitted_at),
        seen_us=seen_us,
        detail=Detail.REQUEST,
        source=_source(letter),
        redriven_offset=redriven,
    )


def _source(letter: DeadLetter) -> Place:
    if letter.source_offset <= NO_PLACE:
        return NOWHERE
    return Place(short(letter.source_topic), letter.source_partition, letter.source_offset)


def parameters_text(asked: DetectParameters) -> str:
    """Parameters as JSON, only those that were asked for."""
    return _text(
        asked.confidence, asked.iou, asked.max_detections, None if asked.classes is None else tuple(asked.classes)
    )


def _parameters(column: pa.StructArray) -> Iterator[str]:
    fields = (column.field(name).to_pylist() for name in ("confidence", "iou", "max_detections", "classes"))
    known: dict[Any, str] = {}  # requests mostly ask for the same
    for confidence, iou, most, classes in zip(*fields, strict=True):
        asked = (confidence, iou, most, None if classes is None else tuple(classes))
        if asked not in known:
            known[asked] = _text(*asked)
        yield known[asked]


def _text(confidence: float | None, iou: float | None, most: int | None, classes: tuple[int, ...] | None) -> str:
    asked = {"confidence": _single(confidence), "iou": _single(iou), "max_detections": most, "classes": classes}
    return json.dumps({name: value for name, value in asked.items() if value is not None}, separators=(",", ":"))


def _single(value: float | None) -> float | None:
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.{_SINGLE_DIGITS}g}")


def _microseconds(column: pa.Array) -> list[int]:
    values: list[int] = column.cast(pa.int64()).to_pylist()
    return values
