"""Which results are a side of a diff: a replay's, a version's, an arm's of a rollout."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ConfigurationError
from schemas.rollouts import Arm

_ARMS = (Arm.STABLE, Arm.CANDIDATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What holds for both sides: None does not restrict. `since` counts, `until` does not any more (time of completion)."""

    tenant: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Which rows of results are within."""
        found = pa.repeat(True, batch.num_rows)
        if self.tenant is not None:
            found = pc.and_(found, pc.equal(batch.column("tenant"), self.tenant))
        completed = batch.column("completed_at").cast(pa.int64())
        if self.since is not None:
            found = pc.and_(found, pc.greater_equal(completed, _microseconds(self.since)))
        if self.until is not None:
            found = pc.and_(found, pc.less(completed, _microseconds(self.until)))
        return found


@dataclass(frozen=True, slots=True)
class Selector:
    """Results that have these values. `arm` is decided once all are there: what a shadow is, the other results tell."""

    text: str
    values: tuple[tuple[str, str], ...]
    arm: Arm | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name@version`, `rollout:ID:stable`, `rollout:ID:candidate`, `replay:ID`, or the id of a replay alone.

        Raises ConfigurationError.
        """
        kind, colon, rest = text.partition(":")
        if colon and kind == "rollout":
            rollout, _, arm = rest.rpartition(":")
            if not rollout or arm not in _ARMS:
                raise ConfigurationError(f"{text!r} is not rollout:ID:stable or rollout:ID:candidate")
            return cls(text, (("rollout", rollout),), Arm(arm))
        replay = rest if colon and kind == "replay" else text
        name, at, version = replay.rpartition("@")
        if at and replay is text:
            if not name or not version:
                raise ConfigurationError(f"{text!r} is not name@version")
            return cls(text, (("model_name", name), ("model_version", version)))
        if not replay:
            raise ConfigurationError("a side is name@version, the id of a replay, or rollout:ID:stable|candidate")
        return cls(text, (("replay_id", replay),))

    @property
    def replay_id(self) -> str | None:
        """The replay whose results these are, if it is one."""
        return dict(self.values).get("replay_id")

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Which rows of results have these values; of a rollout both arms and shadows."""
        found = pa.repeat(True, batch.num_rows)
        for column, value in self.values:
            found = pc.and_(found, pc.equal(batch.column(column), value).fill_null(False))
        return found


def _microseconds(moment: datetime) -> int:
    return int(pa.scalar(moment, pa.timestamp("us", "UTC")).cast(pa.int64()).as_py())
