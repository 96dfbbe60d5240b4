"""Writes stretches of the log into the store: rows and positions in one transaction, so that each record counts exactly once."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from schemas.control import Batch, WorkerProgress
from schemas.errors import SightstreamError
from schemas.moments import to_us
from sinks.base import Extent, Partition
from sinks.deliveries import DeliveryState, receiver_of
from sinks.store_bulk import insert as insert_or
from sinks.store_bulk import insert_new, matching, remove, upsert
from sinks.store_engine import POSTGRESQL, open_engine, writing
from sinks.store_fold import Changes, Known, Plan, Tombstone, fold, touched_batches
from sinks.store_images import ImageRow, Key, State
from sinks.store_policy import StorePolicy
from sinks.store_positions import advance, open_position
from sinks.store_pulse import KEPT_US, latency_class, slot_of
from sinks.store_records import Completion, attributes_text, clean
from sinks.store_tables import (
    BATCHES,
    DELIVERIES,
    IMAGES,
    LABELS,
    MODELS,
    PULSE,
    RESULTS,
    TAKEN,
    TOMBSTONES,
)
from sinks.store_upkeep import sweep

# PostgreSQL's classes of errors that are about what was sent: data, constraints, limits of a row or an index.
_ABOUT_VALUES = ("22", "23", "54")


class UnstorableError(SightstreamError):
    """The database does not take some value in these changes; nothing was written."""


class StoreWriter:
    """The projection's side of the store. Not thread-safe. Any call may raise BusyError: nothing was written, try again.

    `now_us`: the epoch in microseconds. Close it at the end.
    """

    def __init__(self, policy: StorePolicy, now_us: Callable[[], int]) -> None:
        """Raises ConfigurationError for a URL that is of no supported database; connects later."""
        self._policy, self._now_us = policy, now_us
        self.engine = open_engine(policy.database_url, writes=True, timeout_s=policy.timeout_s)

    def open(self, partition: Partition, extent: Extent) -> int:
        """The next offset wanted of a partition: see `open_position`."""
        return open_position(self.engine, partition, extent, self._now_us)

    def sweep(self) -> bool:
        """Forget some of what has expired; whether there is more."""
        return sweep(self.engine, self._policy, self._now_us()) > 0

    def close(self) -> None:
        """Let the connection go."""
        self.engine.dispose()

    def write(self, changes: Changes) -> None:
        """Make changes, wholly or not at all. Raises SupersededError and UnstorableError."""
        with _refused_values(), writing(self.engine) as connection:
            advance(connection, changes.advances)
            plan = fold(_known(connection, changes), changes)
            _write_images(connection, plan)
            _write_batches(connection, changes.batches)
            _write_taken(connection, changes.taken)
            _write_models(connection, plan.results)
            _write_pulse(connection, plan.first_results, self._now_us() - KEPT_US)
            self._make_deliveries(connection, touched_batches(plan, changes.batches))

    def _make_deliveries(self, connection: Connection, batches: Collection[Key]) -> None:
        rows = []
        for condition in matching(BATCHES, batches, "id"):
            called = select(BATCHES).where(condition, BATCHES.c.callback.is_not(None), BATCHES.c.images.is_not(None))
            for batch in connection.execute(called):
                count, finished_us = _finished(connection, batch.tenant, batch.id)
                if count >= batch.images:
                    rows.append(self._delivery(batch.tenant, batch.id, batch.callback, finished_us))
        insert_new(connection, DELIVERIES, rows)

    def _delivery(self, tenant: str, batch_id: str, url: str, finished_us: int) -> dict[str, Any]:
        now_us = self._now_us()
        return {
            "tenant": tenant,
            "batch_id": batch_id,
            "url": url,
            "receiver": receiver_of(url),
            "state": DeliveryState.PENDING.value,
            "created_us": now_us,
            "finished_us": finished_us or now_us,
            "attempts": 0,
            "next_attempt_us": now_us,
            "claimed_until_us": 0,
            "claim": "",
        }


@contextmanager
def _refused_values() -> Iterator[None]:
    """What a database says of values that it does not take, as UnstorableError."""
    try:
        yield
    except (OverflowError, UnicodeError) as error:  # of SQLite's driver
        raise UnstorableError(f"{type(error).__name__}: {error}") from error
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        if not isinstance(error, DataError | IntegrityError) and not state.startswith(_ABOUT_VALUES):
            raise
        raise UnstorableError(str(error.orig).partition("\n")[0]) from error


def _known(connection: Connection, changes: Changes) -> Known:
    known, keys = Known(), changes.images()
    for condition in matching(IMAGES, keys, "id"):
        for columns in connection.execute(select(IMAGES).where(condition)).mappings():
            row = ImageRow(**columns)
            known.rows[row.tenant, row.id] = row
    for condition in matching(TOMBSTONES, keys):
        for stone in connection.execute(select(TOMBSTONES).where(condition)):
            known.tombstones[stone.tenant, stone.image_id] = Tombstone(stone.reason, stone.at_us, stone.batch_id)
    wanted = {(record.submission.tenant, record.submission.id) for record in changes.completions}
    again = [key for key in wanted if key in known.rows and known.rows[key].result_id is not None]
    for condition in matching(RESULTS, again):
        asked = select(RESULTS.c.tenant, RESULTS.c.image_id, RESULTS.c.id, RESULTS.c.silent).where(condition)
        for one in connection.execute(asked):
            (known.silent if one.silent else known.results).add((one.tenant, one.image_id, one.id))
    return known


def _write_images(connection: Connection, plan: Plan) -> None:
    remove(connection, IMAGES, plan.forgotten, "id")
    remove(connection, RESULTS, plan.forgotten)
    remove(connection, LABELS, plan.forgotten | plan.relabelled)
    remove(connection, TOMBSTONES, plan.revived)
    stones = sorted(plan.tombstones.items())
    upsert(connection, TOMBSTONES, [{"tenant": t, "image_id": i, **asdict(stone)} for (t, i), stone in stones])
    upsert(connection, IMAGES, [row.values() for _, row in sorted(plan.rows.items())])
    insert_new(connection, RESULTS, [_result(record) for record in plan.silent])
    upsert(connection, RESULTS, [_result(record) for record in plan.results])
    _move_labels(connection, plan)
    if plan.labels:
        labels = [
            {
                "tenant": key[0],
                "label": label,
                "submitted_us": plan.rows[key].submitted_us,
                "image_id": key[1],
                "score": score,
            }
            for key, scores in sorted(plan.labels.items())
            for label, score in scores.items()
        ]
        if labels:
            connection.execute(insert(LABELS), labels)


def _move_labels(connection: Connection, plan: Plan) -> None:
    if plan.moved:
        here = (LABELS.c.tenant == bindparam("a_tenant"), LABELS.c.image_id == bindparam("an_id"))
        moves = [{"a_tenant": t, "an_id": i, "at": plan.rows[t, i].submitted_us} for t, i in sorted(plan.moved)]
        connection.execute(update(LABELS).where(*here).values(submitted_us=bindparam("at")), moves)


_RESULT = tuple(column.name for column in RESULTS.columns if column.name not in {"tenant", "image_id"})


def _result(record: Completion) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in _RESULT}
    return {"tenant": record.submission.tenant, "image_id": record.submission.id, **values}


def _write_batches(connection: Connection, batches: Sequence[Batch]) -> None:
    last = {(batch.tenant, batch.id): batch for batch in batches}
    rows = [
        {
            "tenant": batch.tenant,
            "id": batch.id,
            "images": batch.images,
            "callback": batch.callback and clean(batch.callback),
            "created_us": to_us(batch.created_at),
            "closed_us": None if batch.closed_at is None else to_us(batch.closed_at),
            "attributes": attributes_text(batch.attributes),
        }
        for _, batch in sorted(last.items())
    ]
    upsert(connection, BATCHES, rows)


def _write_taken(connection: Connection, taken: Sequence[WorkerProgress]) -> None:
    last = {(clean(record.topic), record.partition): record for record in taken}
    rows = [
        {"topic": topic, "partition": partition, "next_offset": record.taken, "at_us": to_us(record.at)}
        for (topic, partition), record in sorted(last.items())
    ]
    upsert(connection, TAKEN, rows)


def _write_models(connection: Connection, results: Sequence[Completion]) -> None:
    seen: dict[tuple[str, str, str], list[int]] = {}
    for record in results:
        seen.setdefault((record.model_name, record.model_version, record.model_digest), []).append(record.completed_us)
    if not seen:
        return
    rows = [
        {"name": name, "version": version, "digest": digest, "first_seen_us": min(times), "last_seen_us": max(times)}
        for (name, version, digest), times in sorted(seen.items())
    ]
    statement = insert_or(connection, MODELS)
    first, last = statement.excluded.first_seen_us, statement.excluded.last_seen_us
    least, most = (func.least, func.greatest) if connection.dialect.name == POSTGRESQL else (func.min, func.max)
    merged = {
        "first_seen_us": least(MODELS.c.first_seen_us, first),
        "last_seen_us": most(MODELS.c.last_seen_us, last),
    }
    connection.execute(statement.on_conflict_do_update(index_elements=["name", "version", "digest"], set_=merged), rows)


def _write_pulse(connection: Connection, first_results: Sequence[tuple[int, float]], since_us: int) -> None:
    counts = Counter((slot_of(at), latency_class(latency)) for at, latency in first_results if at >= since_us)
    if counts:
        statement = insert_or(connection, PULSE)
        rows = [{"slot": s, "latency_class": c, "images": images} for (s, c), images in sorted(counts.items())]
        more = {"images": PULSE.c.images + statement.excluded.images}
        connection.execute(statement.on_conflict_do_update(index_elements=["slot", "latency_class"], set_=more), rows)


def _finished(connection: Connection, tenant: str, batch_id: str) -> tuple[int, int]:
    """How many images of a batch have an outcome or are gone, and the log's time of the last one."""
    outcomes = select(func.count(), func.max(IMAGES.c.seen_us)).where(
        IMAGES.c.tenant == tenant, IMAGES.c.batch_id == batch_id, IMAGES.c.state != State.OPEN
    )
    gone = select(func.count()).where(TOMBSTONES.c.tenant == tenant, TOMBSTONES.c.batch_id == batch_id)
    count, finished_us = connection.execute(outcomes).one()
    return count + connection.execute(gone).scalar_one(), finished_us or 0
