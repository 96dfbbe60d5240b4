"""A caller's wish to forget an image, put on the log."""

import asyncio
from concurrent.futures import Future
from datetime import UTC, datetime

from confluent_kafka import KafkaError, Message

from producers.publisher import Publisher
from schemas.control import Deletion
from schemas.errors import DeliveryError
from sinks.base import Partition
from sinks.results import Forget


def forget_through(publisher: Publisher) -> Forget:
    """`sinks.results.Forget`: done when Kafka confirmed it."""

    async def forget(tenant: str, image_id: str) -> tuple[Partition, int]:
        record = Deletion(image_id=image_id, tenant=tenant, deleted_at=datetime.now(UTC))
        confirmed: Future[tuple[Partition, int]] = Future()

        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                confirmed.set_exception(DeliveryError(f"the deletion of {image_id} was not confirmed: {error}"))
            else:
                confirmed.set_result((Partition(message.topic(), message.partition()), message.offset()))

        value = publisher.codec.encode(record)
        # In a thread: while the publisher's buffer is full it waits.
        await asyncio.to_thread(publisher.send, publisher.topics.deletions, image_id.encode(), value, report)
        return await asyncio.wrap_future(confirmed)

    return forget
