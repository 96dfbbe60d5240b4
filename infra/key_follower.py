"""Follows the topic `keys`, so that every gateway knows within a second what was handed out and what was revoked."""

import time
from collections.abc import Callable

from infra.key_ring import KeyRing
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from streams.fold import Follower


class KeyFollower(Follower):
    """A follower that folds the topic into `ring`."""

    def __init__(
        self,
        connection: KafkaConnection,
        codec: Codec,
        topic: str,
        group: str = "sightstream.keys",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ring = KeyRing()
        super().__init__(connection, codec, {topic: self.ring}, group, now)

    def complaint(self) -> str | None:
        """None once the topic has been read; for readiness."""
        return super().complaint() and "has not read the API keys"
