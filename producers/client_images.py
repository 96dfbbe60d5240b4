"""What a gateway says of an image, as its clients hold it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from schemas.records import Detection, Lane


class ImageStatus(StrEnum):
    """How far an image is. `PROCESSING` includes waiting for a retry."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The model that made a result; `digest` is the sha256 of its file."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an image was given up; `code` is a `schemas.errors.Reason`, or one that a newer server knows."""

    code: str
    message: str
    stage: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as it stands. Until it is completed `model`, `width`, `height` and `timings` are None and `detections` is empty.

    `timings`: milliseconds by stage, `total_ms` from submission until the result. Width, height and boxes are of the oriented frame.
    """

    id: str
    status: ImageStatus
    submitted_at: datetime
    completed_at: datetime | None
    batch_id: str | None
    key: str
    lane: Lane
    attributes: Mapping[str, str]
    model: Model | None
    width: int | None
    height: int | None
    detections: tuple[Detection, ...]
    timings: Mapping[str, float] | None
    failure: Failure | None
    result_id: str | None

    @property
    def finished(self) -> bool:
        """Whether it has its outcome, good or bad."""
        return self.status in {ImageStatus.COMPLETED, ImageStatus.FAILED}

    @classmethod
    def parse(cls, members: Mapping[str, Any]) -> Self:
        """Of the JSON of `GET /v1/images/{id}`; members that are not known are left out. Raises KeyError, TypeError, ValueError."""
        return cls(
            id=members["id"],
            status=ImageStatus(members["status"]),
            submitted_at=parse_time(members["submitted_at"]),
            completed_at=parse_time(members["completed_at"]) if members["completed_at"] else None,
            batch_id=members["batch_id"],
            key=members["key"],
            lane=Lane(members["lane"]),
            attributes=members["attributes"],
            model=_part(Model, members["model"]),
            width=members["width"],
            height=members["height"],
            detections=_detections(members["detections"]),
            timings=members["timings"],
            failure=_part(Failure, members["failure"]),
            result_id=members["result_id"],
        )

    def members(self) -> dict[str, Any]:
        """As the JSON that it was read from, without links."""
        boxes = [
            {"label": d.label, "class_id": d.class_id, "score": d.score, "box": [d.x1, d.y1, d.x2, d.y2]}
            for d in self.detections
        ]
        times = {"submitted_at": _say(self.submitted_at), "completed_at": _say(self.completed_at)}
        return {**asdict(self), **times, "detections": boxes}

    @classmethod
    def parse_result(cls, event: Mapping[str, Any]) -> Self:
        """Of a `result` message of a stream, which says all that there is."""
        submitted, completed = event["submitted_at_ms"], event["completed_at_ms"]
        return cls(
            id=event["image_id"],
            status=ImageStatus.COMPLETED,
            submitted_at=_moment(submitted),
            completed_at=_moment(completed),
            batch_id=event["batch_id"],
            key=event["key"],
            lane=Lane(event["lane"]),
            attributes=event["attributes"],
            model=_part(Model, event["model"]),
            width=event["image_width"],
            height=event["image_height"],
            detections=_detections(event["detections"]),
            timings={**event["timings"], "total_ms": float(completed - submitted)},
            failure=None,
            result_id=event["id"],
        )


def parse_time(text: str) -> datetime:
    """A moment as HTTP's JSON gives it. Raises ValueError."""
    return datetime.fromisoformat(text)


def _say(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _part(kind: type[Any], members: Mapping[str, Any] | None) -> Any:
    """A nested record, of those members that it knows."""
    return None if members is None else kind(**{name: members[name] for name in kind.__slots__})


def _detections(items: list[dict[str, Any]]) -> tuple[Detection, ...]:
    return tuple(
        Detection(
            label=item["label"],
            class_id=item["class_id"],
            score=item["score"],
            **dict(zip(("x1", "y1", "x2", "y2"), item["box"], strict=True)),
        )
        for item in items
    )
