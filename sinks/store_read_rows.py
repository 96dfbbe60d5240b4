"""Rows of the database as what readers get."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from schemas.moments import from_us
from schemas.records import EPOCH, DetectParameters, Lane, Timings
from sinks.stored import Failure, Gone, ImageStatus, StoredBatch, StoredImage, StoredResult


def image_of(row: Any) -> StoredImage:
    """A row of `sinks.store_select.whole_images`."""
    status = ImageStatus(row.status)
    return StoredImage(
        id=row.id,
        tenant=row.tenant,
        status=status,
        uri=row.uri,
        sha256=row.sha256,
        key=row.key,
        lane=Lane(row.lane),
        batch_id=row.batch_id,
        model=row.model,
        parameters=_parameters(row.parameters),
        attributes=json.loads(row.attributes),
        submitted_at=from_us(row.submitted_us),
        result=result_of(row, "result_") if status is ImageStatus.COMPLETED else None,
        failure=_failure(row) if status is ImageStatus.FAILED else None,
    )


def result_of(row: Any, prefix: str = "") -> StoredResult:
    """A row of `sinks.store_select.results_of`; or of an image with its newest result, whose columns have a prefix."""

    def of(name: str) -> Any:
        return getattr(row, prefix + name)

    return StoredResult(
        id=of("id"),
        completed_at=from_us(row.completed_us),
        model_name=of("model_name"),
        model_version=of("model_version"),
        model_digest=of("model_digest"),
        width=of("width"),
        height=of("height"),
        timings=Timings(
            wait_ms=of("wait_ms"),
            fetch_ms=of("fetch_ms"),
            decode_ms=of("decode_ms"),
            inference_ms=of("inference_ms"),
        ),
        detections_json=of("detections"),
    )


def as_seen_by(image: StoredImage, result: StoredResult) -> StoredImage:
    """The image with this result as its outcome."""
    return replace(image, status=ImageStatus.COMPLETED, result=result, failure=None)


def gone_of(row: Any) -> Gone:
    """A row of `tombstones`."""
    return Gone(reason=row.reason, at=from_us(row.at_us))


def stored_batch(key: tuple[str, str], row: Any | None, counts: Sequence[Any], gone: int) -> StoredBatch:
    """A batch of its row, if there is one, and (status, images, first submission) of its images."""
    images = {status: count for status, count, _ in counts}
    return StoredBatch(
        tenant=key[0],
        id=key[1],
        images=row.images if row else None,
        queued=images.get(ImageStatus.QUEUED, 0),
        processing=images.get(ImageStatus.PROCESSING, 0),
        completed=images.get(ImageStatus.COMPLETED, 0),
        failed=images.get(ImageStatus.FAILED, 0),
        gone=gone,
        callback=row.callback if row else None,
        created_at=from_us(row.created_us) if row else _first(counts),
        closed_at=from_us(row.closed_us) if row and row.closed_us is not None else None,
        attributes=json.loads(row.attributes) if row else {},
    )


def _first(counts: Sequence[Any]) -> datetime:
    return from_us(min(submitted for _, _, submitted in counts)) if counts else EPOCH


def _failure(row: Any) -> Failure:
    return Failure(
        code=row.failure_code,
        message=row.failure_message,
        stage=row.failure_stage,
        attempts=row.failure_attempts,
        failed_at=from_us(row.failed_us),
    )


def _parameters(text: str) -> DetectParameters:
    asked = json.loads(text)
    classes = asked.get("classes")
    return DetectParameters(**{**asked, "classes": None if classes is None else tuple(classes)})
