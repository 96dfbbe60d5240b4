"""What a stretch of the log changes: pure, so that order and repetition can be tested without a database."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from schemas.control import Batch, Deletion, WorkerProgress
from schemas.moments import to_us
from sinks.base import Partition
from sinks.store_images import ImageRow, Key
from sinks.store_records import Completion, Loss, Submission, short

DELETED, EXPIRED = "deleted", "expired"


@dataclass(frozen=True, slots=True)
class Advance:
    """A partition was read from `before` up to, not including, `after`; what the log got before `read_us` is in then."""

    partition: Partition
    before: int
    after: int
    read_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Records of a stretch of the log, of all partitions that advanced."""

    advances: tuple[Advance, ...] = ()
    submissions: list[Submission] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    taken: list[WorkerProgress] = field(default_factory=list)

    def images(self) -> set[Key]:
        """Every image that is spoken of."""
        return {
            *((record.tenant, record.id) for record in self._submissions()),
            *((record.tenant, record.image_id) for record in self.deletions),
        }

    def _submissions(self) -> Iterator[Submission]:
        yield from self.submissions
        yield from (record.submission for record in self.completions)
        yield from (record.submission for record in self.losses)


@dataclass(slots=True)
class Tombstone:
    """An image that was forgotten; `batch_id` is the batch it belonged to, as far as that is known."""

    reason: str
    at_us: int
    batch_id: str | None = None


@dataclass(slots=True)
class Known:
    """What the store held of the images that are spoken of. `results`: (tenant, image, result) of those with one; `silent`: the same."""

    rows: dict[Key, ImageRow] = field(default_factory=dict)
    tombstones: dict[Key, Tombstone] = field(default_factory=dict)
    results: set[tuple[str, str, str]] = field(default_factory=set)
    silent: set[tuple[str, str, str]] = field(default_factory=set)


@dataclass(slots=True)
class Plan:
    """What to write. `labels`: of images whose newest result changed; `relabelled` of them had labels.

    `results` replace what is there under their ids, `silent` ones do not: the same work may have been done for users and in a replay.
    `moved`: images with labels whose time of submission changed. `first_results`: (completed_us, latency in ms) of images that had none.
    """

    rows: dict[Key, ImageRow] = field(default_factory=dict)
    results: list[Completion] = field(default_factory=list)
    silent: list[Completion] = field(default_factory=list)
    labels: dict[Key, dict[str, float]] = field(default_factory=dict)
    relabelled: set[Key] = field(default_factory=set)
    moved: set[Key] = field(default_factory=set)
    tombstones: dict[Key, Tombstone] = field(default_factory=dict)
    forgotten: set[Key] = field(default_factory=set)
    revived: set[Key] = field(default_factory=set)
    first_results: list[tuple[int, float]] = field(default_factory=list)


def fold(known: Known, changes: Changes) -> Plan:
    """The plan for these changes. `known` is used up: its rows become the plan's."""
    return _Fold(known).run(changes)


class _Fold:
    def __init__(self, known: Known) -> None:
        self._known, self._plan = known, Plan()
        self._labelled_at = {key: row.submitted_us for key, row in known.rows.items() if row.top_score is not None}

    def run(self, changes: Changes) -> Plan:
        self._delete(changes.deletions)
        for record in changes.submissions:
            if self._wanted(record):
                self._row(record).submitted(record)
        for completion in changes.completions:
            if completion.silent:
                self._complete_silently(completion)
            else:
                self._complete(completion)
        for loss in changes.losses:
            if self._wanted(loss.submission):
                self._row(loss.submission).failed(loss)
        for key, at_us in self._labelled_at.items():
            if key in self._plan.rows and key not in self._plan.labels and self._plan.rows[key].submitted_us != at_us:
                self._plan.moved.add(key)
        return self._plan

    def _delete(self, deletions: Iterable[Deletion]) -> None:
        for deletion in deletions:
            key = (deletion.tenant, deletion.image_id)
            before = self._known.tombstones.get(key)
            if before is not None and before.reason == DELETED:
                continue
            row = self._known.rows.pop(key, None)
            batch_id = row.batch_id if row else before.batch_id if before else None
            stone = Tombstone(DELETED, to_us(deletion.deleted_at), batch_id)
            self._known.tombstones[key] = self._plan.tombstones[key] = stone
            if row is not None:
                self._plan.forgotten.add(key)

    def _wanted(self, record: Submission) -> bool:
        """Whether an image may be kept; the first word about one that has expired brings it back."""
        key = (record.tenant, record.id)
        stone = self._known.tombstones.get(key)
        if stone is None:
            return True
        if stone.reason == EXPIRED:
            del self._known.tombstones[key]
            self._plan.revived.add(key)
            return True
        if stone.batch_id is None and record.batch_id is not None:
            stone.batch_id = record.batch_id
            self._plan.tombstones[key] = stone
        return False

    def _row(self, record: Submission) -> ImageRow:
        key = (record.tenant, record.id)
        row = self._known.rows.get(key)
        if row is None:
            row = self._known.rows[key] = ImageRow.of(record)
        self._plan.rows[key] = row
        return row

    def _complete(self, record: Completion) -> None:
        tenant, image = record.submission.tenant, record.submission.id
        identity = (tenant, image, record.id)
        if identity in self._known.results or not self._wanted(record.submission):
            return
        self._known.results.add(identity)
        self._plan.results.append(record)
        row = self._row(record.submission)
        if row.result_id is None:
            latency_ms = (record.completed_us - record.submission.submitted_us) / 1000
            self._plan.first_results.append((record.completed_us, latency_ms))
        if row.completed(record):
            self._plan.labels[tenant, image] = _labels(record)
            if (tenant, image) in self._labelled_at:
                self._plan.relabelled.add((tenant, image))

    def _complete_silently(self, record: Completion) -> None:
        """Keep a result that is nobody's outcome. What was deleted or has expired stays so; an image not known yet stays hidden."""
        key = (record.submission.tenant, record.submission.id)
        identity = (*key, record.id)
        if key in self._known.tombstones or identity in self._known.results or identity in self._known.silent:
            return
        self._known.silent.add(identity)
        self._plan.silent.append(record)
        self._row(record.submission).submitted(record.submission)


def _labels(record: Completion) -> dict[str, float]:
    best: dict[str, float] = {}
    for label, score in record.scores.items():
        name = short(label)
        best[name] = max(score, best.get(name, 0.0))
    return best


def touched_batches(plan: Plan, batches: Iterable[Batch]) -> set[Key]:
    """Batches that may have become complete by a plan."""
    found = {(batch.tenant, batch.id) for batch in batches}
    found |= {(row.tenant, row.batch_id) for row in plan.rows.values() if row.batch_id is not None and row.state}
    return found | {(key[0], stone.batch_id) for key, stone in plan.tombstones.items() if stone.batch_id is not None}
