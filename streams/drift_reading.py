"""Reads a result topic for a watcher of drift: every partition from where the watcher says, without a consumer group."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from types import TracebackType
from typing import Self

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import BusyError, FatalError
from schemas.records import DetectionResult
from sinks.base import Partition, ResultRun
from streams.ends import end_offsets
from streams.membership import HOPELESS

log = logging.getLogger(__name__)

_REQUEST_S = 10.0
_GATHER_S = 0.02
# Public constants of the client, whatever their names look like.
_END = KafkaError._PARTITION_EOF  # noqa: SLF001
_TRUNCATED = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Stretch:
    """What came next: runs of results, and the partitions that were read to their ends."""

    runs: Sequence[ResultRun] = ()
    ended: frozenset[int] = frozenset()


class ResultReader:
    """A context manager; not thread-safe. `group` is never joined nor committed to, but the client asks for its coordinator.

    `positions`: the next offset of each partition. Values that cannot be read are passed over: the sinks bury them.
    """

    def __init__(self, connection: KafkaConnection, codec: Codec, topic: str, group: str) -> None:
        self._codec, self._topic = codec, topic
        self._waiting: frozenset[int] = frozenset()
        self._hopeless: KafkaError | None = None
        self.positions: dict[int, int] = {}
        self._consumer = Consumer(
            {
                **connection.librdkafka(),
                "client.id": group,
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",  # what was deleted before it was read is said, never passed over silently
                "isolation.level": "read_committed",
                "reconnect.backoff.max.ms": 1000,
                "error_cb": self._on_error,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def ends(self) -> dict[int, int]:
        """Where each partition ends now. Raises ConfigurationError where there is no such topic."""
        return end_offsets(self._consumer, self._topic)

    def at(self, moment: datetime) -> dict[int, int]:
        """The first offset of each partition that Kafka got at that moment or later. Raises ConfigurationError or KafkaException."""
        ends, stamp = self.ends(), round(moment.timestamp() * 1000)
        asked = [TopicPartition(self._topic, partition, stamp) for partition in ends]
        found = self._consumer.offsets_for_times(asked, timeout=_REQUEST_S)
        return {one.partition: one.offset if one.offset >= 0 else ends[one.partition] for one in found}

    def begin(self, positions: Mapping[int, int]) -> None:
        """Read from these offsets on."""
        self.positions = dict(positions)
        self._waiting = frozenset()
        self._consumer.assign([TopicPartition(self._topic, index, offset) for index, offset in positions.items()])

    def hold(self, partitions: frozenset[int]) -> None:
        """Read nothing of these until they are not named any more."""
        if stop := partitions - self._waiting:
            self._consumer.pause([TopicPartition(self._topic, partition) for partition in stop])
        if go := self._waiting - partitions:
            self._consumer.resume([TopicPartition(self._topic, partition) for partition in go])
        self._waiting = partitions

    def read(self, most: int, timeout_s: float, stop: threading.Event) -> Stretch:
        """What comes within this time; waits for the schema registry until `stop`. Raises FatalError where going on is of no use."""
        first = self._consumer.poll(timeout_s)
        if self._hopeless is not None:
            raise FatalError(f"the results cannot be read: {self._hopeless}")
        if first is None:
            return Stretch()
        messages = [first, *self._consumer.consume(most - 1, _GATHER_S)]
        ended, gone, good = set[int](), set[int](), list[Message]()
        for message in messages:
            if message.error() is None:
                good.append(message)
                ended.discard(message.partition())
            elif message.error().code() == _END:
                ended.add(message.partition())
            elif message.error().code() == _TRUNCATED:
                gone.add(message.partition())
            else:
                self._on_error(message.error())
        good.sort(key=Message.partition)  # stable: offsets stay in order
        runs = [self._run(partition, list(some), stop) for partition, some in groupby(good, Message.partition)]
        if gone:
            self._skip_gaps(gone)
        return Stretch([run for run in runs if run is not None], frozenset(ended))

    def _run(self, partition: int, messages: Sequence[Message], stop: threading.Event) -> ResultRun | None:
        values = [message.value() for message in messages]
        while not stop.is_set():
            try:
                decoded = self._codec.decode_run(values, DetectionResult)
            except BusyError as error:
                log.warning("drift: waits: %s", error)
                stop.wait(max(error.retry_after_s, 1.0))
            else:
                offsets = np.array([message.offset() for message in messages], np.int64)
                stamps = np.array([message.timestamp()[1] for message in messages], np.int64)
                first, behind = int(offsets[0]), int(offsets[-1]) + 1
                self.positions[partition] = behind
                rows = decoded.index
                return ResultRun(
                    Partition(self._topic, partition), first, behind, decoded.batch, offsets[rows], stamps[rows]
                )
        return None

    def _skip_gaps(self, partitions: set[int]) -> None:
        """Retention was faster, or the topic was made anew: go on at what there is, and say so."""
        for partition in partitions:
            log.error("drift: results of %s %d were deleted before they were read", self._topic, partition)
            place = TopicPartition(self._topic, partition)
            try:
                self.positions[partition], _ = self._consumer.get_watermark_offsets(place, timeout=_REQUEST_S)
            except KafkaException as error:
                raise FatalError(f"cannot find where {self._topic} {partition} begins: {error}") from error
        self.begin(self.positions)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in HOPELESS:
            self._hopeless = error
        log.warning("drift: %s", error.str())
