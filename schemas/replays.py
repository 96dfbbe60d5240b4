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
    """Offsets `first` to before `end` of a partition, of which `references` are replayed; `digest` (hex) is the chain over those."""

    partition: int = 0
    first: int = 0
    end: int = 0
    references: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayMark:
    """A place on the log, between two records: `offset` is the one behind it."""

    topic: str = ""
    partition: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayManifest:
    """Exactly which references a replay sends again. Topic `replays`, compacted by `id`; never changed once it is written.

    `digest`: `sha256:` + hex over what is replayed, in order. `model` is `name@version`. `into`: the topic of its results, None for the
    usual one. `tenant`, `batch_id` and `filters` (attribute -> value) say what was chosen. `notify`: whether users are told of its results.
    `marks`: where the bulk lane and the topics of outcomes ended when it was made; whatever the replay brings about lies behind.
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
    marks: tuple[ReplayMark, ...] = ()
    created_by: str = ""
    created_at: datetime = EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPosition:
    """Of a partition, the records before `next` have been dealt with: `sent` references sent, whose chain is `digest` (hex)."""

    partition: int = 0
    next: int = 0
    sent: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayProgress:
    """How far a replay has come. Topic `replay-progress`, compacted by `id`. It may be behind what was really sent, never ahead.

    `marks`: places on the bulk lane behind which all lies that was sent and is not in `positions`. `runner` is the process that says so;
    each that goes on with a replay takes the next `turn`, and whoever sees a later one than its own leaves off.
    """

    id: str
    state: ReplayState = ReplayState.RUNNING
    sent: int = 0
    positions: tuple[ReplayPosition, ...] = ()
    marks: tuple[ReplayMark, ...] = ()
    runner: str = ""
    turn: int = 0
    at: datetime = EPOCH
