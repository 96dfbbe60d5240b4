"""Sees how the lanes do while a replay runs: what waits on them, and how long people waited for their latest images."""

import logging
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import SightstreamError
from schemas.records import DetectionResult, Lane
from schemas.topics import Topics
from streams.ends import end_offsets
from streams.replay_pace import Sight
from streams.replay_policy import ReplayPolicy

log = logging.getLogger(__name__)

_AT_ONCE = 2_000
_ROUNDS = 20  # of fetching at one look
_REQUEST_S = 5.0
_BEFORE = 2_000  # records of a partition that are read of the time before


class Online:
    """A reader of results and of what the workers' `group` has committed, without joining it. A context manager; not thread-safe."""

    def __init__(
        self,
        connection: KafkaConnection,
        codec: Codec,
        topics: Topics,
        group: str,
        policy: ReplayPolicy,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._codec, self._topics, self._policy, self._now = codec, topics, policy, now
        self._consumer = Consumer({**connection.librdkafka(), "group.id": group, **_SETTINGS})
        # When each was done (epoch seconds), and how long it took (ms).
        self._latencies: list[tuple[float, float]] = []
        self._group, self._complained = group, False
        self._reading = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def look(self) -> Sight | None:
        """How things are now; None where the brokers or the registry do not answer."""
        try:
            if not self._reading:
                self._begin()
            self._read()
            (online_lag, _), (bulk_lag, bulk_done) = self._lane(Lane.ONLINE), self._lane(Lane.BULK)
            return Sight(online_lag, bulk_lag, self._p95_ms(), bulk_done)
        except (KafkaException, SightstreamError) as error:
            log.warning("replay: cannot see how the online lane does, and waits: %s", error)
            return None

    def _begin(self) -> None:
        """From a window before now on, so that how things were without the replay is known at once."""
        topic, ends = self._topics.detections, end_offsets(self._consumer, self._topics.detections)
        self._consumer.assign(
            [TopicPartition(topic, partition, max(0, end - _BEFORE)) for partition, end in ends.items()]
        )
        self._reading = True
        positions = {partition for partition, end in ends.items() if end}
        deadline = time.monotonic() + _REQUEST_S
        while positions and time.monotonic() < deadline:
            for message in self._take(self._consumer.consume(_AT_ONCE, timeout=0.1)):
                if message.offset() >= ends[message.partition()] - 1:
                    positions.discard(message.partition())

    def _read(self) -> None:
        for _ in range(_ROUNDS):
            if not self._take(self._consumer.consume(_AT_ONCE, timeout=0.0)):
                break
        # All of them are looked at: partitions come one after the other, and not by time.
        oldest = self._now() - self._policy.window_s
        self._latencies = [one for one in self._latencies if one[0] >= oldest]

    def _take(self, messages: Sequence[Message]) -> Sequence[Message]:
        good = [message for message in messages if message.error() is None]
        if good:
            results = self._codec.decode_run([message.value() for message in good], DetectionResult).batch
            awaited = pc.and_(pc.equal(results.column("lane"), Lane.ONLINE.value), pc.invert(results.column("silent")))
            mine = results.filter(awaited)
            done, asked = (mine.column(name).cast(pa.int64()).to_numpy() for name in ("completed_at", "submitted_at"))
            self._latencies.extend(zip((done / 1e6).tolist(), ((done - asked) / 1e3).tolist(), strict=True))
        return good

    def _p95_ms(self) -> float | None:
        if len(self._latencies) < max(1, self._policy.window_images):
            return None
        return float(np.percentile([latency for _, latency in self._latencies], 95))

    def _lane(self, lane: Lane) -> tuple[int, int]:
        """Records that no worker has finished, and those that are. A group that never committed has all of them before it."""
        topic = self._topics.lane(lane)
        ends = end_offsets(self._consumer, topic)
        committed = self._consumer.committed([TopicPartition(topic, partition) for partition in ends], _REQUEST_S)
        unknown = any(ends.values()) and all(place.offset < 0 for place in committed)
        if unknown and lane is Lane.ONLINE and not self._complained:  # the bulk lane may well be new
            self._complained = True
            log.warning("replay: the group %s has worked off nothing of %s: is it the workers'?", self._group, topic)
        done = [(ends[place.partition], max(0, place.offset)) for place in committed]
        return sum(max(0, end - offset) for end, offset in done), sum(offset for _, offset in done)


_SETTINGS = {
    "client.id": "sightstream-replay",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "latest",
    "isolation.level": "read_committed",
    "fetch.wait.max.ms": 100,
    "log_level": 3,
}
