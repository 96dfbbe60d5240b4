"""Reading an image or a batch as it stands now: the store, what the log's tail told since, and waiting for what has no outcome yet."""

import asyncio
from http import HTTPStatus

from schemas.problems import ProblemError, not_found
from sinks.events import Kind
from sinks.results_view import image_of, with_outcome
from sinks.store_base import PAGE_LIMIT, ImageQuery, LogEnds, Page, ResultStore
from sinks.store_fresh import FreshReads
from sinks.stored import Gone, ImageStatus, StoredBatch, StoredImage
from sinks.waits import Wait, Waits

_UNFINISHED = (ImageStatus.QUEUED, ImageStatus.PROCESSING)
_MOST_WAITED = 1_000
_PAUSE_S = 0.25


class ResultReads:
    """What HTTP says of images and batches. What is unknown, or another tenant's, is ProblemError 404; what is gone, 410.

    Raises BusyError while the store or the brokers do not answer, StoreBehindError where nobody can say yet.
    """

    def __init__(self, store: ResultStore, log: LogEnds, waits: Waits, catch_up_s: float = 2.0) -> None:
        self.store, self.log, self.waits = store, log, waits
        self.fresh = FreshReads(store, log, catch_up_s)

    async def image(self, tenant: str, image_id: str, wait_s: float = 0.0) -> StoredImage:
        """An image; with `wait_s`, when it has its outcome, or as it stands after so many seconds."""
        if wait_s <= 0:
            return await self.known(tenant, image_id)
        with self.waits.on(tenant, [image_id]) as wait:
            image = await self.known(tenant, image_id)
            if image.finished:
                return image
            await wait.finish(wait_s)
            event = wait.found.get(image_id)
            # Without an outcome it may have been taken, or deleted, meanwhile.
            return with_outcome(image, event) if event else await self.known(tenant, image_id)

    async def batch(self, tenant: str, batch_id: str, wait_s: float = 0.0) -> StoredBatch:
        """A batch; with `wait_s`, when each of its images has an outcome, or as it stands after so many seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        batch = await self._batch(tenant, batch_id)
        while batch.status != "completed" and not self.waits.closed and (left := deadline - loop.time()) > 0:
            await self._progress(batch, left)
            batch = await self._batch(tenant, batch_id)
        return batch

    async def image_as_of(self, tenant: str, image_id: str, model: str) -> StoredImage:
        """An image with the newest result of a version (`NAME@VERSION`), be it silent. Raises ProblemError 404 where there is none."""
        await self.known(tenant, image_id)
        found = await self.fresh.find(lambda: self.store.image(tenant, image_id, model))
        if isinstance(found, StoredImage):
            return found
        raise not_found(f"result of {model[:100]}")

    async def batch_images(
        self, batch: StoredBatch, limit: int, cursor: str | None, model: str | None = None
    ) -> Page[StoredImage]:
        """A page of a batch's images; with a `model` (`NAME@VERSION`) of those that it has a result of. Raises InvalidCursorError."""
        return await self.store.batch_images(batch.tenant, batch.id, limit, cursor, model)

    async def known(self, tenant: str, image_id: str) -> StoredImage:
        """`image` without waiting."""
        found: StoredImage | Gone | None = await self.fresh.find(lambda: self._look(tenant, image_id))
        if found is None:
            raise not_found("image")
        if isinstance(found, Gone):
            raise ProblemError(HTTPStatus.GONE, found.reason, f"the image was known until it was {_GONE[found.reason]}")
        return found

    async def _look(self, tenant: str, image_id: str) -> StoredImage | Gone | None:
        """What the store knows, and the tail since: a client that was pushed a result must find it here."""
        stored = await self.store.image(tenant, image_id)
        event = self.waits.recent(tenant, image_id)
        if event is None or isinstance(stored, Gone):
            return stored
        if stored is None:
            return image_of(event) if event.subject.kind is Kind.RESULT else None
        return with_outcome(stored, event)

    async def _batch(self, tenant: str, batch_id: str) -> StoredBatch:
        found = await self.fresh.find(lambda: self.store.batch(tenant, batch_id))
        if found is None:
            raise not_found("batch")
        return found

    async def _progress(self, batch: StoredBatch, timeout_s: float) -> None:
        """Return when the images of a batch that have no outcome have one and the store knows it, or after a while."""
        ids = await self._unfinished(batch)
        if not ids:  # it is still being submitted, or the store has read one topic further than another
            await asyncio.sleep(min(_PAUSE_S, timeout_s))
            return
        with self.waits.on(batch.tenant, ids) as wait:
            await wait.finish(timeout_s)
            if wait.found or wait.broken:
                await self._catch_up(wait, timeout_s)

    async def _catch_up(self, wait: Wait, timeout_s: float) -> None:
        await self.fresh.reaches(await self.log.ends())
        if wait.broken:  # nobody will tell: ask now and then
            await asyncio.sleep(min(1.0, timeout_s))

    async def _unfinished(self, batch: StoredBatch) -> list[str]:
        ids: list[str] = []
        cursor = None
        while len(ids) < _MOST_WAITED:
            page = await self.store.images(
                ImageQuery(
                    tenant=batch.tenant, batch_id=batch.id, statuses=_UNFINISHED, limit=PAGE_LIMIT, cursor=cursor
                )
            )
            ids += [image.id for image in page.items]
            cursor = page.next
            if cursor is None:
                break
        return ids


_GONE = {"deleted": "deleted", "expired": "forgotten as old as the settings say"}
