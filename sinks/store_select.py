"""The questions of readers as SQL. Each names the tenant."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Label, Select, and_, case, exists, func, literal, or_, select, tuple_, union_all

from schemas.moments import to_us
from sinks.store_base import ImageQuery
from sinks.store_cursor import decode_cursor
from sinks.store_images import State
from sinks.store_records import Detail, searchable, short
from sinks.store_tables import IMAGES, LABELS, RESULTS, TAKEN
from sinks.stored import ImageStatus

_STATES = {ImageStatus.COMPLETED: State.COMPLETED, ImageStatus.FAILED: State.FAILED}
_SHOWN = IMAGES.c.detail > int(Detail.SILENT)
_PROCESSING = and_(TAKEN.c.next_offset.is_not(None), IMAGES.c.source_offset < TAKEN.c.next_offset)
_AT_SOURCE = and_(TAKEN.c.topic == IMAGES.c.source_topic, TAKEN.c.partition == IMAGES.c.source_partition)
_NEWEST = and_(
    RESULTS.c.tenant == IMAGES.c.tenant, RESULTS.c.image_id == IMAGES.c.id, RESULTS.c.id == IMAGES.c.result_id
)


def status_label() -> Label[str]:
    """The status of an image, for a select that joins `TAKEN` as `whole_images` does."""
    return case(
        (IMAGES.c.state == State.COMPLETED, literal(ImageStatus.COMPLETED.value)),
        (IMAGES.c.state == State.FAILED, literal(ImageStatus.FAILED.value)),
        (_PROCESSING, literal(ImageStatus.PROCESSING.value)),
        else_=literal(ImageStatus.QUEUED.value),
    ).label("status")


def whole_images(tenant: str, ids: Collection[str]) -> Select[Any]:
    """Images with their newest results, in any order."""
    result = [column.label(f"result_{column.name}") for column in RESULTS.columns if column.name != "id"]
    return (
        select(IMAGES, *result, status_label())
        .select_from(IMAGES.outerjoin(RESULTS, _NEWEST).outerjoin(TAKEN, _AT_SOURCE))
        .where(IMAGES.c.tenant == tenant, IMAGES.c.id.in_(list(ids)), _SHOWN)
    )


def results_of(tenant: str, ids: Collection[str], model: str) -> Select[Any]:
    """Results of a version (`NAME@VERSION`) in these images, silent or not, each image's newest last."""
    return (
        select(RESULTS)
        .where(RESULTS.c.tenant == tenant, RESULTS.c.image_id.in_(list(ids)), *_of_version(model))
        .order_by(RESULTS.c.image_id, RESULTS.c.completed_us, RESULTS.c.id)
    )


def page_of_images(query: ImageQuery, oldest_us: int, limit: int) -> Select[Any]:
    """(submitted_us, id) of the images that a query asks for, newest first. Raises InvalidCursorError."""
    conditions = [IMAGES.c.tenant == query.tenant, IMAGES.c.seen_us >= oldest_us, _SHOWN, *_conditions(query)]
    place = decode_cursor(query.cursor, int, str)
    if place is not None:
        conditions.append(tuple_(IMAGES.c.submitted_us, IMAGES.c.id) < tuple_(*map(literal, place)))
    if not query.labels:
        return _ordered(select(IMAGES.c.submitted_us, IMAGES.c.id).select_from(_source(query)), conditions, limit)
    # One walk through the index for each label, then the best of all: an IN would sort everything that any of them has.
    walks = [
        _walk(query, label, conditions, limit)
        for label in dict.fromkeys(short(searchable(label)) for label in query.labels)
    ]
    if len(walks) == 1:
        return walks[0]
    found = union_all(*(select(walk.subquery()) for walk in walks)).subquery()
    columns = (found.c.submitted_us, found.c.id)
    return select(*columns).distinct().order_by(*(column.desc() for column in columns)).limit(limit)


def page_of_batch(
    batch: tuple[str, str], cursor: str | None, oldest_us: int, limit: int, model: str | None = None
) -> Select[Any]:
    """(submitted_us, id) of the images of a batch (tenant, id), oldest first. Raises InvalidCursorError."""
    place = decode_cursor(cursor, int, str)
    order = (IMAGES.c.submitted_us, IMAGES.c.id)
    found = select(*order).where(
        IMAGES.c.tenant == batch[0],
        IMAGES.c.batch_id == searchable(batch[1]),
        IMAGES.c.seen_us >= oldest_us,
        _SHOWN,
    )
    if model is not None:
        found = found.where(_has_result_of(model))
    if place is not None:
        found = found.where(tuple_(*order) > tuple_(*map(literal, place)))
    return found.order_by(*order).limit(limit)


def batch_counts(tenant: str, batch_id: str) -> Select[str, int, Any]:
    """(status, images, first submission in µs) of a batch."""
    status = status_label()
    return (
        select(status, func.count(), func.min(IMAGES.c.submitted_us))
        .select_from(IMAGES.outerjoin(TAKEN, _AT_SOURCE))
        .where(IMAGES.c.tenant == tenant, IMAGES.c.batch_id == searchable(batch_id), _SHOWN)
        .group_by(status)
    )


def _walk(query: ImageQuery, label: str, conditions: Sequence[ColumnElement[bool]], limit: int) -> Select[Any]:
    seen = and_(
        LABELS.c.tenant == query.tenant,
        LABELS.c.label == label,
        LABELS.c.submitted_us == IMAGES.c.submitted_us,
        LABELS.c.image_id == IMAGES.c.id,
    )
    found = select(LABELS.c.submitted_us, LABELS.c.image_id.label("id")).select_from(_source(query).join(LABELS, seen))
    found = found.where(*conditions, LABELS.c.tenant == query.tenant, LABELS.c.label == label)
    place = decode_cursor(query.cursor, int, str)
    if place is not None:
        found = found.where(tuple_(LABELS.c.submitted_us, LABELS.c.image_id) < tuple_(*map(literal, place)))
    if query.min_score > 0:
        found = found.where(LABELS.c.score >= query.min_score)
    return found.order_by(LABELS.c.submitted_us.desc(), LABELS.c.image_id.desc()).limit(limit)


def _ordered(found: Select[Any], conditions: Sequence[ColumnElement[bool]], limit: int) -> Select[Any]:
    order = (IMAGES.c.submitted_us.desc(), IMAGES.c.id.desc())
    return found.where(*conditions).order_by(*order).limit(limit)


def _source(query: ImageQuery) -> Any:
    waiting = {ImageStatus.QUEUED, ImageStatus.PROCESSING} & set(query.statuses)
    return IMAGES.outerjoin(TAKEN, _AT_SOURCE) if len(waiting) == 1 else IMAGES


def _conditions(query: ImageQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if query.keys:
        found.append(_one_of(IMAGES.c.key, [searchable(key) for key in query.keys]))
    if query.batch_id is not None:
        found.append(IMAGES.c.batch_id == searchable(query.batch_id))
    if query.since is not None:
        found.append(IMAGES.c.submitted_us >= to_us(query.since))
    if query.until is not None:
        found.append(IMAGES.c.submitted_us < to_us(query.until))
    if query.min_score > 0 and not query.labels:
        found.append(IMAGES.c.top_score >= query.min_score)
    if query.model is not None:
        versioned = "@" in query.model
        found.append(
            _has_result_of(query.model) if versioned else IMAGES.c.model_name == short(searchable(query.model))
        )
    if query.statuses:
        found.append(_has_status(set(query.statuses)))
    return found


def _has_result_of(model: str) -> ColumnElement[bool]:
    """Whether a version has seen the image, silently or not."""
    return exists().where(RESULTS.c.tenant == IMAGES.c.tenant, RESULTS.c.image_id == IMAGES.c.id, *_of_version(model))


def _of_version(model: str) -> tuple[ColumnElement[bool], ...]:
    name, _, version = searchable(model).rpartition("@")
    return RESULTS.c.model_name == short(name), RESULTS.c.model_version == short(version)


def _has_status(wanted: set[ImageStatus]) -> ColumnElement[bool]:
    states = sorted(_STATES[status] for status in wanted & _STATES.keys())
    waiting = wanted - _STATES.keys()
    if len(waiting) == 2:
        return _one_of(IMAGES.c.state, [State.OPEN, *states])
    if not waiting:
        return _one_of(IMAGES.c.state, states)
    taken = (
        _PROCESSING
        if ImageStatus.PROCESSING in waiting
        else or_(TAKEN.c.next_offset.is_(None), IMAGES.c.source_offset >= TAKEN.c.next_offset)
    )
    return or_(*(IMAGES.c.state == state for state in states), and_(IMAGES.c.state == State.OPEN, taken))


def _one_of(column: ColumnElement[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """A single value as an equation: then the index gives the order, too."""
    return column == values[0] if len(values) == 1 else column.in_(values)
