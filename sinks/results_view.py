"""Images and batches as HTTP shows them: the one place that knows their JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from schemas.records import EPOCH, Lane, Timings
from sinks.events import Event, Kind
from sinks.stored import Failure, ImageStatus, StoredBatch, StoredImage, StoredResult


def image_text(image: StoredImage) -> str:
    """An image as a JSON object. Its boxes are JSON already, and stay as they are: there may be thousands."""
    boxes = image.result.detections_json if image.result else "[]"
    return f'{_dumps(_submitted(image))[:-1]},"detections":{boxes},{_dumps(_outcome(image))[1:]}'


def image_json(image: StoredImage) -> dict[str, Any]:
    """The same as values."""
    shown: dict[str, Any] = json.loads(image_text(image))
    return shown


def page_text(images: Sequence[StoredImage], following: str | None) -> str:
    """A page of a search."""
    return f'{{"images":[{",".join(map(image_text, images))}],"next":{json.dumps(following)}}}'


def batch_text(batch: StoredBatch, images: Sequence[StoredImage], following: str | None) -> str:
    """A batch and a page of its images."""
    fields = {
        "id": batch.id,
        "status": batch.status,
        "images": batch.images,
        "queued": batch.queued,
        "processing": batch.processing,
        "completed": batch.completed,
        "failed": batch.failed,
        "gone": batch.gone,
        "created_at": time_text(batch.created_at),
        "closed_at": time_text(batch.closed_at) if batch.closed_at else None,
        "next": following,
        "links": {"self": batch_link(batch.id)},
    }
    return f'{_dumps(fields)[:-1]},"results":[{",".join(map(image_text, images))}]}}'


def image_link(image_id: str) -> str:
    """Where an image is."""
    return f"/v1/images/{quote(image_id, safe='')}"


def batch_link(batch_id: str) -> str:
    """Where a batch is."""
    return f"/v1/batches/{quote(batch_id, safe='')}"


def time_text(moment: datetime) -> str:
    """RFC 3339, UTC, whole milliseconds (cut, not rounded: all who tell of a moment agree)."""
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z".rjust(24, "0")


def image_of(event: Event) -> StoredImage:
    """What a result's event says of its image. Of a failure it is less than what was submitted: lane, attributes and time are missing."""
    told = json.loads("{" + event.body)
    submitted = _moment(told["submitted_at_ms"]) if "submitted_at_ms" in told else EPOCH
    image = StoredImage(
        id=told["image_id"],
        tenant=told["tenant"],
        status=ImageStatus.PROCESSING,
        uri=told.get("uri", ""),
        key=told["key"],
        lane=Lane(told.get("lane", Lane.ONLINE)),
        batch_id=told["batch_id"],
        attributes=told.get("attributes", {}),
        submitted_at=submitted,
    )
    return _with(image, event, told)


def with_outcome(image: StoredImage, event: Event) -> StoredImage:
    """An image of the store with an outcome that the store may not know yet. What it knows already stays: a result, or any failure."""
    if image.result is not None or (image.failure is not None and event.subject.kind is Kind.FAILED):
        return image
    return _with(image, event, json.loads("{" + event.body))


def _with(image: StoredImage, event: Event, told: Mapping[str, Any]) -> StoredImage:
    if event.subject.kind is Kind.FAILED:
        failure = Failure(
            code=told["code"],
            message=told["message"],
            stage=told["stage"],
            attempts=told["attempts"],
            failed_at=_moment(told["failed_at_ms"]),
        )
        return replace(image, status=ImageStatus.FAILED, failure=failure)
    model = told["model"]
    result = StoredResult(
        id=told["id"],
        completed_at=_moment(told["completed_at_ms"]),
        model_name=model["name"],
        model_version=model["version"],
        model_digest=model["digest"],
        width=told["image_width"],
        height=told["image_height"],
        timings=Timings(**told["timings"]),
        detections_json=_dumps(told["detections"]),
    )
    return replace(image, status=ImageStatus.COMPLETED, result=result, failure=None)


def _submitted(image: StoredImage) -> dict[str, Any]:
    return {
        "id": image.id,
        "status": image.status,
        "batch_id": image.batch_id,
        "key": image.key,
        "lane": image.lane,
        "attributes": dict(sorted(image.attributes.items())),
        "submitted_at": time_text(image.submitted_at),
    }


def _outcome(image: StoredImage) -> dict[str, Any]:
    """The rest; a result counts more than a failure."""
    result, failure = image.result, None if image.result else image.failure
    ended = result.completed_at if result else failure.failed_at if failure else None
    links = {"self": image_link(image.id), "annotated": f"{image_link(image.id)}/annotated"}
    if image.batch_id is not None:
        links["batch"] = batch_link(image.batch_id)
    return {
        "completed_at": time_text(ended) if ended else None,
        "model": _model(result) if result else None,
        "width": (result.width or None) if result else None,
        "height": (result.height or None) if result else None,
        "timings": _timings(result, image.submitted_at) if result else None,
        "failure": _failure(failure) if failure else None,
        "result_id": result.id if result else None,
        "links": links,
    }


def _model(result: StoredResult) -> dict[str, str]:
    return {"name": result.model_name, "version": result.model_version, "digest": result.model_digest}


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "code": failure.code,
        "message": failure.message,
        "stage": failure.stage,
        "attempts": max(failure.attempts, 1),
    }


def _timings(result: StoredResult, submitted_at: datetime) -> dict[str, float]:
    stages = {
        name: round(max(getattr(result.timings, name), 0.0), 3)
        for name in ("wait_ms", "fetch_ms", "decode_ms", "inference_ms")
    }
    # From whole milliseconds, as events know them; clocks of two machines may even disagree.
    total = (_whole(result.completed_at) - _whole(submitted_at)) // timedelta(milliseconds=1)
    return {**stages, "total_ms": float(max(total, 0))}


def _whole(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _moment(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
