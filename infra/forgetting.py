"""A caller's wish to forget an image, put on the log."""

import asyncio
from datetime import UTC, datetime

from producers.publisher import Publisher
from schemas.control import Deletion
from sinks.base import Partition
from sinks.results import Forget


def forget_through(publisher: Publisher) -> Forget:
    """`sinks.results.Forget`: done when Kafka confirmed it."""

    async def forget(tenant: str, image_id: str) -> tuple[Partition, int]:
        record = Deletion(image_id=image_id, tenant=tenant, deleted_at=datetime.now(UTC))
        # In a thread: while the publisher's buffer is full it waits.
        sent = await asyncio.to_thread(publisher.put, publisher.topics.deletions, image_id, record)
        receipt = await asyncio.wrap_future(sent)
        return Partition(receipt.topic, receipt.partition), receipt.offset

    return forget
