"""What a webhook says: that a batch is done, and how it went."""

import json
from typing import Protocol

from sinks.deliveries import ClaimedDelivery
from sinks.results_view import batch_text, time_text
from sinks.store_base import Page
from sinks.stored import StoredBatch, StoredImage


class Batches(Protocol):
    """Who knows batches: `sinks.store_base.ResultStore`."""

    async def batch(self, tenant: str, batch_id: str) -> StoredBatch | None:
        """A batch with its counts. Raises BusyError."""

    async def batch_images(
        self, tenant: str, batch_id: str, limit: int = 50, cursor: str | None = None
    ) -> Page[StoredImage]:
        """Its images. Raises BusyError."""


async def message_of(claimed: ClaimedDelivery, batches: Batches, images: int) -> bytes | None:
    """The body of a delivery: the batch as `GET /v1/batches/{id}` shows it, with its first `images` images.

    None where the batch is known no more. Raises BusyError. One attempt may say more than the one before: an image that had failed may
    have been done after all.
    """
    batch = await batches.batch(claimed.tenant, claimed.batch_id)
    if batch is None:
        return None
    page = await batches.batch_images(claimed.tenant, claimed.batch_id, images)
    moment = json.dumps(time_text(claimed.finished_at))
    shown = batch_text(batch, page.items, page.next)
    return f'{{"type":"batch.completed","timestamp":{moment},"data":{shown}}}'.encode()
