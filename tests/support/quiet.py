"""A Kafka that takes only what says how a batch went, and no image."""

from typing import Any

import pytest

from producers.publisher import OnDelivery
from schemas.codec import Codec, PackagedSchemas
from schemas.topics import Topics


class NoKafka:
    """For tests in which everything is refused: confirms batches, and fails the test where an image is published."""

    def __init__(self) -> None:
        self.codec, self.topics = Codec(PackagedSchemas()), Topics()

    def send(self, topic: str, key: bytes | None, value: bytes | None, on_delivery: OnDelivery) -> None:
        """Confirm at once."""
        assert key
        assert value
        if topic != self.topics.batches:
            pytest.fail("an image was published")
        nothing: Any = None
        on_delivery(None, nothing)

    def __len__(self) -> int:
        return 0
