"""How records about one image become one row, whatever the order in which they arrive: topics are read side by side."""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

from sinks.store_records import NO_PLACE, NOT_REDRIVEN, Completion, Detail, Loss, Submission

Key = tuple[str, str]
"""Tenant and image id, or tenant and batch id."""


class State(IntEnum):
    """`images.state`."""

    OPEN = 0
    COMPLETED = 1
    FAILED = 2


@dataclass(slots=True, kw_only=True)
class ImageRow:
    """A row of `images`, column by column. Applying the same records in another order, or twice, leaves the same row.

    The request: the record that says most, of several the one submitted first. The result: the one completed last. The failure: the
    newest dead letter, unless its record was redriven since; a result counts more. The place: that of the newest redrive, else the first.
    """

    tenant: str
    id: str
    detail: int
    batch_id: str | None
    key: str
    lane: str
    uri: str
    sha256: str | None
    model: str | None
    parameters: str
    attributes: str
    submitted_us: int
    seen_us: int
    source_topic: str = ""
    source_partition: int = 0
    source_offset: int = NO_PLACE
    redriven_offset: int = NOT_REDRIVEN
    state: int = State.OPEN
    result_id: str | None = None
    completed_us: int | None = None
    model_name: str | None = None
    model_version: str | None = None
    top_score: float | None = None
    failure_offset: int = NO_PLACE
    failure_code: str | None = None
    failure_message: str | None = None
    failure_stage: str | None = None
    failure_attempts: int | None = None
    failed_us: int | None = None

    @classmethod
    def of(cls, record: Submission) -> "ImageRow":
        """The row of an image of which this is the first word."""
        row = cls(**{name: getattr(record, name) for name in _REQUEST})
        row._place(record)
        return row

    def values(self) -> dict[str, Any]:
        """Column -> value."""
        return {name: getattr(self, name) for name in COLUMNS}

    def submitted(self, record: Submission) -> None:
        """A request, or what an outcome repeats of it."""
        self.seen_us = seen_us = max(self.seen_us, record.seen_us)
        if (record.detail, -record.submitted_us) > (self.detail, -self.submitted_us):
            for name in _REQUEST:
                setattr(self, name, getattr(record, name))
            self.seen_us = seen_us
        self._place(record)

    def completed(self, record: Completion) -> bool:
        """A result that was not known; whether it is now the newest one."""
        self.submitted(record.submission)
        if self.result_id is not None and (record.completed_us, record.id) < (self.completed_us, self.result_id):
            return False
        self.state = State.COMPLETED
        self.result_id, self.completed_us = record.id, record.completed_us
        self.model_name, self.model_version = record.model_name, record.model_version
        self.top_score = max(record.scores.values(), default=None)
        return True

    def failed(self, record: Loss) -> None:
        """A dead letter."""
        self.submitted(record.submission)
        if record.offset > max(self.failure_offset, self.redriven_offset):
            self.failure_offset = record.offset
            self.failure_code, self.failure_message = record.code, record.message
            self.failure_stage, self.failure_attempts = record.stage, record.attempts
            self.failed_us = record.failed_us
            self._settle()

    def _place(self, record: Submission) -> None:
        if self._goes_before(record):
            self.source_topic, self.source_partition, self.source_offset = record.source
            self._forget_failure(lost=True)
        self.redriven_offset = max(self.redriven_offset, record.redriven_offset)
        self._forget_failure()

    def _forget_failure(self, *, lost: bool = False) -> None:
        """The failure's record was sent again; `lost`: also where it failed because its log was lost, which has no letter."""
        if self.failure_offset > self.redriven_offset or (self.failure_offset == NO_PLACE and not lost):
            return
        self.failure_offset = NO_PLACE
        self.failure_code = self.failure_message = self.failure_stage = None
        self.failure_attempts = self.failed_us = None
        self._settle()

    def _goes_before(self, record: Submission) -> bool:
        if record.source.offset == NO_PLACE or record.redriven_offset < self.redriven_offset:
            return False
        place = (self.source_topic, self.source_partition, self.source_offset)
        newer = record.redriven_offset > self.redriven_offset
        return newer or self.source_offset == NO_PLACE or record.source < place

    def _settle(self) -> None:
        if self.state != State.COMPLETED:
            self.state = State.OPEN if self.failure_code is None else State.FAILED


COLUMNS = tuple(field.name for field in fields(ImageRow))
_REQUEST = COLUMNS[: COLUMNS.index("seen_us") + 1]
assert set(_REQUEST) < {field.name for field in fields(Submission)}
assert Detail.SILENT < Detail.IDS < Detail.RESULT < Detail.REQUEST
