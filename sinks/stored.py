"""What the result store holds, as its readers get it. Times are UTC; nothing here knows of SQL or HTTP."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from schemas.records import EPOCH, Detection, DetectParameters, Lane, Timings


class ImageStatus(StrEnum):
    """Where an image stands. `processing`: a worker has taken it; a result counts more than a failure."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """The newest result of an image.

    `detections_json` is a JSON array as it goes to clients: `[{"label", "class_id", "score", "box": [x1, y1, x2, y2]}]`, scores with 4
    and boxes (pixels of the oriented frame) with 2 decimals, ASCII only.
    """

    id: str
    completed_at: datetime
    model_name: str = ""
    model_version: str = ""
    model_digest: str = ""
    width: int = 0
    height: int = 0
    timings: Timings = field(default_factory=Timings)
    detections_json: str = "[]"

    def detections(self) -> tuple[Detection, ...]:
        """The boxes, parsed."""
        return tuple(_detection(box) for box in json.loads(self.detections_json))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an image has no result: its newest dead letter. `code` is a `schemas.errors.Reason`."""

    code: str
    message: str
    stage: str
    attempts: int
    failed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image as it was submitted, and what became of it: `result` where it is completed, `failure` where it failed.

    `key` is empty where none was given. `model` is what was asked for, `result.model_name` what answered.
    """

    id: str
    tenant: str
    status: ImageStatus
    uri: str = ""
    sha256: str | None = None
    key: str = ""
    lane: Lane = Lane.ONLINE
    batch_id: str | None = None
    model: str | None = None
    parameters: DetectParameters = field(default_factory=DetectParameters)
    attributes: Mapping[str, str] = field(default_factory=dict)
    submitted_at: datetime = EPOCH
    result: StoredResult | None = None
    failure: Failure | None = None

    @property
    def finished(self) -> bool:
        """Whether there is an outcome."""
        return self.result is not None or self.failure is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """An image that was known and is not any more: `deleted` by its tenant, or `expired` by the store's setting."""

    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBatch:
    """A batch and how its images stand. `images`: how many belong to it, None while that is not known.

    `gone` counts images that were deleted or have expired: they are finished, too.
    """

    id: str
    tenant: str
    images: int | None = None
    queued: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    gone: int = 0
    callback: str | None = None
    created_at: datetime = EPOCH
    closed_at: datetime | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """`receiving` until it is closed, `running` until each image has an outcome, then `completed`."""
        if self.images is None:
            return "receiving"
        return "completed" if self.completed + self.failed + self.gone >= self.images else "running"


def _detection(box: Mapping[str, Any]) -> Detection:
    x1, y1, x2, y2 = box["box"]
    return Detection(label=box["label"], class_id=box["class_id"], score=box["score"], x1=x1, y1=y1, x2=x2, y2=y2)
