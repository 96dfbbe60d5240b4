"""Forgetting: what is older than its setting, and everything that the log can bring back."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, exists, not_, select

from sinks.store_bulk import insert_new, remove
from sinks.store_engine import writing
from sinks.store_fold import EXPIRED
from sinks.store_policy import StorePolicy
from sinks.store_pulse import KEPT_US, slot_of
from sinks.store_tables import (
    ATTEMPTS,
    BATCHES,
    DELIVERIES,
    IMAGES,
    LABELS,
    MODELS,
    POSITIONS,
    PULSE,
    RESULTS,
    TAKEN,
    TOMBSTONES,
)

_AT_ONCE = 1_000
_DAY_US = 86_400_000_000


def oldest_kept_us(policy: StorePolicy, now_us: int) -> int:
    """Images about which the log said nothing since then have expired."""
    return now_us - round(policy.keep_days * _DAY_US) if policy.keep_days else -(1 << 62)


def sweep(engine: Engine, policy: StorePolicy, now_us: int) -> int:
    """Forget up to 1,000 images that have expired, and what else is past its time; how many images. Raises BusyError."""
    if not policy.keep_days:
        return 0
    with writing(engine) as connection:
        oldest_us = oldest_kept_us(policy, now_us)
        named = (IMAGES.c.tenant, IMAGES.c.id, IMAGES.c.batch_id, IMAGES.c.seen_us)
        old = connection.execute(
            select(*named).where(IMAGES.c.seen_us < oldest_us).order_by(IMAGES.c.seen_us).limit(_AT_ONCE)
        ).all()
        _forget(connection, old, now_us)
        _forget_what_was_known(connection, oldest_us - round(policy.remember_days * _DAY_US))
        connection.execute(delete(PULSE).where(PULSE.c.slot < slot_of(now_us - KEPT_US)))
    return len(old)


def clear(engine: Engine) -> None:
    """Forget all that the log tells, so that a projection reads it again from the start. Raises BusyError.

    Tombstones stay, since they may outlive the log's word of them, and webhook deliveries, since nobody is to be told twice.
    """
    with writing(engine) as connection:
        for table in (IMAGES, RESULTS, LABELS, BATCHES, MODELS, PULSE, TAKEN, POSITIONS):
            connection.execute(delete(table))


def _forget(connection: Connection, old: Sequence[Any], now_us: int) -> None:
    keys = {(row.tenant, row.id) for row in old}
    stones = [
        {"tenant": row.tenant, "image_id": row.id, "reason": EXPIRED, "batch_id": row.batch_id, "at_us": now_us}
        for row in old
    ]
    insert_new(connection, TOMBSTONES, stones)
    remove(connection, LABELS, keys)
    remove(connection, RESULTS, keys)
    remove(connection, IMAGES, keys, "id")


def _forget_what_was_known(connection: Connection, before_us: int) -> None:
    """Traces of images that were forgotten long ago. Deletions are for ever: a replay may come at any time."""
    connection.execute(delete(TOMBSTONES).where(TOMBSTONES.c.reason == EXPIRED, TOMBSTONES.c.at_us < before_us))
    alive = exists().where(IMAGES.c.tenant == BATCHES.c.tenant, IMAGES.c.batch_id == BATCHES.c.id)
    connection.execute(delete(BATCHES).where(and_(BATCHES.c.created_us < before_us, not_(alive))))
    connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.at_us < before_us))
    connection.execute(
        delete(DELIVERIES).where(DELIVERIES.c.next_attempt_us.is_(None), DELIVERIES.c.created_us < before_us)
    )
