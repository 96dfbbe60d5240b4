"""The result store as its readers see it: SQL in threads, so that a slow database never stops an event loop."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, func, select

from schemas.errors import SightstreamError
from schemas.moments import from_us
from sinks.base import Partition
from sinks.store_base import PAGE_LIMIT, ImageQuery, ModelSeen, Pace, Page
from sinks.store_cursor import encode_cursor
from sinks.store_engine import open_engine, passing_errors
from sinks.store_policy import StorePolicy
from sinks.store_pulse import SLOT_US, percentile_ms, slot_of
from sinks.store_read_rows import as_seen_by, gone_of, image_of, result_of, stored_batch
from sinks.store_records import searchable
from sinks.store_schema import check_migrated
from sinks.store_select import batch_counts, page_of_batch, page_of_images, results_of, whole_images
from sinks.store_tables import BATCHES, MODELS, POSITIONS, PULSE, TAKEN, TOMBSTONES
from sinks.store_upkeep import oldest_kept_us
from sinks.stored import Gone, StoredBatch, StoredImage

Answer = TypeVar("Answer")

_LOOK_S = 1.0


class SqlResultStore:
    """A `sinks.store_base.ResultStore` on SQLite or PostgreSQL. `now_us`: the epoch in microseconds. Close it at the end."""

    def __init__(self, policy: StorePolicy, now_us: Callable[[], int]) -> None:
        """Raises ConfigurationError for a URL that is of no supported database; connects later."""
        self._policy, self._now_us = policy, now_us
        self._engine: Engine = open_engine(
            policy.database_url, writes=False, timeout_s=policy.timeout_s, connections=policy.connections
        )
        self._threads = ThreadPoolExecutor(policy.connections, "store-read")
        self._complaint: str | None = "the result store was not asked yet"

    @property
    def backend(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    def complaint(self) -> str | None:
        """What stands in the way of reading, as `watch` last found it: a readiness probe."""
        return self._complaint

    async def watch(self, stop: asyncio.Event) -> None:
        """Keep `complaint` up to date until `stop` is set."""
        while not stop.is_set():
            await self.check()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_S)

    async def check(self) -> str | None:
        """Ask the database whether it can be read by this release; what stands in the way, or None."""
        try:
            await self._in_thread(lambda: check_migrated(self._engine))
        except SightstreamError as error:
            self._complaint = str(error)
        else:
            self._complaint = None
        return self._complaint

    def close(self) -> None:
        """Let connections and threads go."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()

    async def image(self, tenant: str, image_id: str, model: str | None = None) -> StoredImage | Gone | None:
        """One image, or None; with a `model` as that version saw it."""
        found = await self._read(lambda connection: self._by_id(connection, tenant, [image_id], model))
        return found.get(image_id)

    async def images_by_id(self, tenant: str, image_ids: Sequence[str]) -> Mapping[str, StoredImage | Gone]:
        """Those of the images that are known."""
        return await self._read(lambda connection: self._by_id(connection, tenant, image_ids))

    async def images(self, query: ImageQuery) -> Page[StoredImage]:
        """Images that the query asks for, newest submission first."""
        limit = _bounded(query.limit)
        page = page_of_images(query, self._oldest_us(), limit + 1)
        model = query.model if query.model is not None and "@" in query.model else None
        return await self._read(lambda connection: self._page(connection, (query.tenant, model), page, limit))

    async def batch(self, tenant: str, batch_id: str) -> StoredBatch | None:
        """A batch with its counts."""
        return await self._read(lambda connection: _batch(connection, tenant, batch_id))

    async def batch_images(
        self, tenant: str, batch_id: str, limit: int = 50, cursor: str | None = None, model: str | None = None
    ) -> Page[StoredImage]:
        """Images of a batch, oldest submission first; with a `model` as that version saw them."""
        limit = _bounded(limit)
        page = page_of_batch((tenant, batch_id), cursor, self._oldest_us(), limit + 1, model)
        return await self._read(lambda connection: self._page(connection, (tenant, model), page, limit))

    async def positions(self) -> Mapping[Partition, int]:
        """Partition -> the offset after the last record that is in the store."""
        return await self._read(lambda connection: _offsets(connection, POSITIONS))

    async def caught_up(self, ends: Mapping[Partition, int]) -> bool:
        """Whether every record below these ends is in the store."""
        positions = await self.positions()
        return all(positions.get(partition, 0) >= end for partition, end in ends.items())

    async def taken(self) -> Mapping[Partition, int]:
        """Partition of an images topic -> the next offset that no worker has taken."""
        return await self._read(lambda connection: _offsets(connection, TAKEN))

    async def models(self) -> Sequence[ModelSeen]:
        """Models with results in the store, the one seen last first."""
        rows = await self._read(
            lambda connection: connection.execute(select(MODELS).order_by(MODELS.c.last_seen_us.desc())).all()
        )
        return [
            ModelSeen(
                name=row.name,
                version=row.version,
                digest=row.digest,
                first_seen_at=from_us(row.first_seen_us),
                last_seen_at=from_us(row.last_seen_us),
            )
            for row in rows
        ]

    async def pace(self, window_s: float = 60.0) -> Pace:
        """Throughput and latency over the last `window_s`, in whole slots of 10 s, of which the running one is left out."""
        slots = max(1, round(window_s * 1e6 / SLOT_US))
        now = slot_of(self._now_us())
        counted = (
            select(PULSE.c.latency_class, func.sum(PULSE.c.images))
            .where(PULSE.c.slot >= now - slots, PULSE.c.slot < now)
            .group_by(PULSE.c.latency_class)
        )
        rows = await self._read(lambda connection: connection.execute(counted).all())
        counts = {latency: int(images) for latency, images in rows}
        return Pace(
            throughput_per_s=sum(counts.values()) / (slots * SLOT_US / 1e6),
            p50_ms=percentile_ms(counts, 0.50),
            p95_ms=percentile_ms(counts, 0.95),
            p99_ms=percentile_ms(counts, 0.99),
        )

    async def behind_s(self) -> float | None:
        """What the log got more than so many seconds ago is in the store; None before the projection first ran."""
        oldest = await self._read(
            lambda connection: connection.execute(select(func.min(POSITIONS.c.read_us))).scalar_one()
        )
        return None if oldest is None else max(0.0, (self._now_us() - oldest) / 1e6)

    async def _read(self, ask: Callable[[Connection], Answer]) -> Answer:
        def answer() -> Answer:
            with passing_errors(), self._engine.connect() as connection:
                return ask(connection)

        return await self._in_thread(answer)

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _oldest_us(self) -> int:
        return oldest_kept_us(self._policy, self._now_us())

    def _by_id(
        self, connection: Connection, tenant: str, ids: Sequence[str], model: str | None = None
    ) -> dict[str, StoredImage | Gone]:
        oldest_us = self._oldest_us()
        ids = [one for one in ids if searchable(one) == one]
        found: dict[str, StoredImage | Gone] = {}
        for row in connection.execute(whole_images(tenant, ids)):
            found[row.id] = image_of(row) if row.seen_us >= oldest_us else self._expired(row.seen_us)
        missing = [image_id for image_id in ids if image_id not in found]
        if missing:
            stones = select(TOMBSTONES).where(TOMBSTONES.c.tenant == tenant, TOMBSTONES.c.image_id.in_(missing))
            found |= {row.image_id: gone_of(row) for row in connection.execute(stones)}
        return found if model is None else _as_of(connection, tenant, found, model)

    def _page(self, connection: Connection, whose: tuple[str, str | None], page: Any, limit: int) -> Page[StoredImage]:
        """`whose`: the tenant, and the version as of which images are shown."""
        places, (tenant, model) = connection.execute(page).all(), whose
        shown = places[:limit]
        found = self._by_id(connection, tenant, [place.id for place in shown], model) if shown else {}
        # An image may have gone between the two questions.
        items = tuple(image for place in shown if isinstance(image := found.get(place.id), StoredImage))
        return Page(items, encode_cursor(*shown[-1]) if len(places) > limit else None)

    def _expired(self, seen_us: int) -> Gone:
        return Gone(reason="expired", at=from_us(seen_us + self._now_us() - self._oldest_us()))


def _as_of(
    connection: Connection, tenant: str, images: Mapping[str, StoredImage | Gone], model: str
) -> dict[str, StoredImage | Gone]:
    """Images as a version saw them, and those that are gone; without those that it did not see."""
    known = [image_id for image_id, image in images.items() if isinstance(image, StoredImage)]
    seen = {row.image_id: result_of(row) for row in connection.execute(results_of(tenant, known, model))}
    return {
        image_id: image if isinstance(image, Gone) else as_seen_by(image, seen[image_id])
        for image_id, image in images.items()
        if isinstance(image, Gone) or image_id in seen
    }


def _batch(connection: Connection, tenant: str, batch_id: str) -> StoredBatch | None:
    if searchable(batch_id) != batch_id:
        return None
    row = connection.execute(select(BATCHES).where(BATCHES.c.tenant == tenant, BATCHES.c.id == batch_id)).one_or_none()
    counts = connection.execute(batch_counts(tenant, batch_id)).all()
    gone = connection.execute(
        select(func.count()).where(TOMBSTONES.c.tenant == tenant, TOMBSTONES.c.batch_id == batch_id)
    ).scalar_one()
    if row is None and not counts and not gone:
        return None
    return stored_batch((tenant, batch_id), row, counts, gone)


def _offsets(connection: Connection, table: Any) -> dict[Partition, int]:
    rows = connection.execute(select(table.c.topic, table.c.partition, table.c.next_offset))
    return {Partition(row.topic, row.partition): row.next_offset for row in rows}


def _bounded(limit: int) -> int:
    return max(1, min(limit, PAGE_LIMIT))
