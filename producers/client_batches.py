"""What a gateway says of submissions and batches, as its clients hold it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from producers.client_images import parse_time
from schemas.problems import ProblemError


class BatchStatus(StrEnum):
    """How far a batch is. `RECEIVING`: its images are still being submitted."""

    RECEIVING = "receiving"
    RUNNING = "running"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch as it stands. `images`: how many belong to it, None while they are still being submitted."""

    id: str
    status: BatchStatus
    images: int | None
    queued: int
    processing: int
    completed: int
    failed: int
    created_at: datetime
    closed_at: datetime | None

    @classmethod
    def parse(cls, members: Mapping[str, Any]) -> Self:
        """Of the JSON of `GET /v1/batches/{id}`, without the page of images in it."""
        counts = {name: members[name] for name in ("images", "queued", "processing", "completed", "failed")}
        return cls(
            id=members["id"],
            status=BatchStatus(members["status"]),
            created_at=parse_time(members["created_at"]),
            closed_at=parse_time(members["closed_at"]) if members["closed_at"] else None,
            **counts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedBatch:
    """What became of each picture of a batch, in the order in which they were given: its image id, or why it was not taken."""

    id: str
    entries: tuple[str | ProblemError, ...]

    @property
    def accepted(self) -> tuple[str, ...]:
        """The ids of the images that were taken."""
        return tuple(entry for entry in self.entries if isinstance(entry, str))

    @classmethod
    def parse(cls, members: Mapping[str, Any]) -> Self:
        """Of the JSON of a 202."""
        return cls(id=members["batch_id"], entries=tuple(map(_entry, members["images"])))


def parse_problem(members: Mapping[str, Any]) -> ProblemError:
    """Of `application/problem+json`, what a server raised. Raises KeyError, TypeError, ValueError."""
    known = {"type", "title", "status", "code", "detail"}
    extra = {name: value for name, value in members.items() if name not in known}
    return ProblemError(int(members["status"]), str(members["code"]), str(members["detail"]), extra=extra)


def _entry(members: Mapping[str, Any]) -> str | ProblemError:
    if "problem" in members:
        return parse_problem(members["problem"])
    identifier: str = members["id"]
    return identifier
