"""Kafkas that do not take images: one must not get any, one never confirms."""

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


class SilentKafka:
    """Takes everything and confirms nothing; `error`: says that it was not written."""

    def __init__(self, error: str | None = None) -> None:
        self.codec, self.topics = Codec(PackagedSchemas()), Topics()
        self._error, self._sent = error, 0

    def send(self, topic: str, key: bytes | None, value: bytes | None, on_delivery: OnDelivery) -> None:
        """Keep silent, or refuse."""
        del topic, key, value
        self._sent += 1
        if self._error is not None:
            refusal: Any = self._error
            on_delivery(refusal, refusal)

    def __len__(self) -> int:
        return self._sent
