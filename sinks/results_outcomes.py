"""For whoever holds a submission's answer (`POST /v1/images?wait=`): outcomes as JSON, from the log's tail rather than a database."""

import asyncio
import logging
from collections.abc import Sequence

from schemas.errors import BusyError
from schemas.problems import ProblemError
from sinks.events import Event, Kind
from sinks.results_reads import ResultReads
from sinks.results_view import batch_text, image_of, image_text, with_outcome
from sinks.stored import StoredImage
from sinks.waits import Wait

log = logging.getLogger(__name__)

_PAGE = 50


class SubmittedOutcomes:
    """Both give the JSON of API v1, or None where it does not come in time, or where nobody can say now.

    `old`: those of the images that were submitted before and so may have had their outcome for long: the store is asked, once.
    """

    def __init__(self, reads: ResultReads) -> None:
        self._reads, self._waits = reads, reads.waits

    async def image(self, tenant: str, image_id: str, timeout_s: float, old: Sequence[str] = ()) -> str | None:
        """The image, once it has its outcome."""
        with self._waits.on(tenant, [image_id]) as wait:
            await self._finish(wait, tenant, old, timeout_s)
        event = wait.found.get(image_id)
        if not wait.done:
            return None
        if event is not None and event.subject.kind is Kind.RESULT:
            return image_text(image_of(event))
        return await self._read(tenant, image_id, event)

    async def batch(
        self, tenant: str, batch_id: str, image_ids: Sequence[str], timeout_s: float, old: Sequence[str] = ()
    ) -> str | None:
        """The batch and the first page of its images, once all these images have their outcomes and the store knows it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        with self._waits.on(tenant, image_ids) as wait:
            await self._finish(wait, tenant, old, timeout_s)
            if not wait.done:
                return None
        try:
            batch = await self._reads.batch(tenant, batch_id, max(deadline - loop.time(), 1.0))
            page = await self._reads.batch_images(batch, _PAGE, None)
        except (BusyError, ProblemError) as error:
            log.warning("a batch that is complete cannot be read now: %s", error)
            return None
        return batch_text(batch, page.items, page.next) if batch.status == "completed" else None

    async def _finish(self, wait: Wait, tenant: str, old: Sequence[str], timeout_s: float) -> None:
        if asked := [image_id for image_id in old if image_id not in wait.found]:
            try:
                known = await self._reads.store.images_by_id(tenant, asked)
            except BusyError as error:
                log.warning("waits without asking the store: %s", error)
                known = {}
            for image_id, image in known.items():
                if not isinstance(image, StoredImage) or image.finished:
                    wait.pass_over(image_id)
        await wait.finish(timeout_s)

    async def _read(self, tenant: str, image_id: str, event: Event | None) -> str | None:
        """From the store: what had its outcome long ago, or failed, since a dead letter says less than what was submitted."""
        try:
            image = await self._reads.known(tenant, image_id)
        except (BusyError, ProblemError):
            return None  # deleted meanwhile, or the store is behind: it can be read later
        if event is not None:
            image = with_outcome(image, event)
        return image_text(image) if image.finished else None
