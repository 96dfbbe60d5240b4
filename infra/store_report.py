"""What `sightstream store` says and does beside migrating."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import closing

from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from infra.runtime import run_together
from infra.settings import Settings
from infra.store import open_log_ends, open_store, open_writer, projection, store_policy
from infra.telemetry import Health
from schemas.errors import ConfigurationError, FatalError
from sinks.base import Partition
from sinks.store_engine import open_engine, passing_errors
from sinks.store_schema import check_migrated, current_version, migrate
from sinks.store_tables import BATCHES, DELIVERIES, IMAGES, RESULTS, TOMBSTONES
from sinks.store_upkeep import clear

_LOOK_S = 0.5


async def report(settings: Settings) -> list[str]:
    """Lines on the database, its contents and its lag. Raises ConfigurationError where it was never migrated, BusyError."""
    policy = store_policy(settings)
    url = make_url(policy.database_url).render_as_string(hide_password=True)
    engine = open_engine(policy.database_url, writes=False, timeout_s=policy.timeout_s)
    try:
        check_migrated(engine)
        version = current_version(engine)
        with passing_errors(), engine.connect() as connection:
            tables = (IMAGES, RESULTS, BATCHES, TOMBSTONES, DELIVERIES)
            counts = {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables
            }
    finally:
        engine.dispose()
    with closing(open_store(settings)) as store, closing(open_log_ends(settings)) as log:
        positions, ends, behind_s = await store.positions(), await log.ends(), await store.behind_s()
    return [
        f"{url}, schema {version}",
        ", ".join(f"{name} {count:,}" for name, count in counts.items()),
        "never filled" if behind_s is None else f"{behind_s:.1f} s behind",
        *_lags(positions, ends),
    ]


async def rebuild(settings: Settings, say: Callable[[str], None], stop: asyncio.Event) -> None:
    """Clear the store and fill it from the log; returns when it has what the log held at the start. Raises FatalError if stopped before."""
    with closing(open_log_ends(settings)) as log:
        ends = await log.ends()
    if not ends:
        raise ConfigurationError("there are no topics to read: run `sightstream topics create`")
    with closing(open_writer(settings)) as writer:
        await asyncio.to_thread(migrate, writer.engine)
        await asyncio.to_thread(clear, writer.engine)
    done = False

    async def watch(ended: asyncio.Event) -> None:
        nonlocal done
        with closing(open_store(settings)) as store:
            while not (done or ended.is_set()):
                positions = await store.positions()
                left = sum(max(end - positions.get(place, 0), 0) for place, end in ends.items())
                say(f"{left:,} records to go")
                done = not left
                if not done:
                    await asyncio.sleep(_LOOK_S)

    await run_together({"watch": watch, "store": projection(settings, Health())}, stop)
    if not done:
        raise FatalError("stopped before the store had caught up; `sightstream sink store` goes on where this ended")


def _lags(positions: Mapping[Partition, int], ends: Mapping[Partition, int]) -> list[str]:
    width = max((len(place.topic) for place in ends), default=5)
    rows = [f"{'topic':{width}}  partition    position         end         lag"]
    for place, end in sorted(ends.items()):
        position = positions.get(place, 0)
        rows.append(f"{place.topic:{width}}  {place.index:9}  {position:10}  {end:10}  {max(end - position, 0):10}")
    return rows
