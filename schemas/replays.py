"""Records of replays: which references are sent again, through which model, and how far that has come."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from schemas.records import EPOCH


class ReplayState(StrEnum):
    """How a replay stands. A `stopped` one can be gone on with, like one that was killed."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRange:
    """Offsets `first` to before `end` of a partition, of which `references` are replayed."""

    partition: int = 0
    first: int = 0
    end: int = 0
    references: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayManifest:
    """Exactly which references a replay sends again. Topic `replays`, compacted by `id`; never changed once it is written.

    `digest`: `sha256:` + hex over what is replayed, in order. `model` is `name@version`. `into`: the topic of its results, None for the
    usual one. `tenant`, `batch_id` and `filters` (attribute -> value) say what was chosen. `notify`: whether users are told of its results.
    """

    id: str
    topic: str = ""
    ranges: tuple[ReplayRange, ...] = ()
    references: int = 0
    digest: str = ""
    model: str = ""
    into: str | None = None
    tenant: str | None = None
    batch_id: str | None = None
    filters: Mapping[str, str] = field(default_factory=dict)
    notify: bool = False
    created_by: str = ""
    created_at: datetime = EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPosition:
    """Of a partition, the records before `next` have been dealt with, and `sent` references of them sent."""

    partition: int = 0
    next: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayProgress:
    """How far a replay has come. Topic `replay-progress`, compacted by `id`. It may be behind what was really sent, never ahead."""

    id: str
    state: ReplayState = ReplayState.RUNNING
    sent: int = 0
    positions: tuple[ReplayPosition, ...] = ()
    at: datetime = EPOCH
