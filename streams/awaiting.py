"""Waits until every image of a batch has its result or its dead letter, and counts what came."""

import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, Message, TopicPartition

from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import RejectedError
from schemas.records import DeadLetter, DetectionResult
from schemas.topics import Topics
from streams.ends import end_offsets

Marks = Mapping[str, Mapping[str, int]]
"""Where to begin: topic -> partition (as text, since JSON knows no other names) -> offset."""

_AT_ONCE = 2_000
_POLL_S = 0.2


@dataclass(slots=True)
class Tally:
    """What is known of the awaited images.

    `detections`: boxes per label. `failures`: image id -> code of its dead letter. `latencies_ms`: from submission to
    completed detection, one a result, by the clocks of publisher and worker.
    """

    results: int = 0
    detections: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    latencies_ms: "array[float]" = field(default_factory=lambda: array("f"))

    def latency_ms(self, share: float) -> float | None:
        """The latency that this share (0..1) of the results did not exceed; None without a result."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


class Outcomes:
    """Reads results and dead letters from noted offsets on, without a consumer group. A context manager; not thread-safe.

    The ids waited for are kept in memory, about 130 bytes each.
    """

    def __init__(self, connection: KafkaConnection, codec: Codec, topics: Topics) -> None:
        self._codec = codec
        self._topics = topics
        self._consumer = Consumer(
            {
                **connection.librdkafka(),
                "group.id": "sightstream-publish",  # never joined, never committed to: the client insists on a name
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
            }
        )
        self.tally = Tally()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def marks(self, *, from_start: bool = False) -> Marks:
        """Where both topics end now, to be noted before publishing; or where they begin.

        Raises `ConfigurationError` where there is no such topic.
        """
        ends = {
            name: end_offsets(self._consumer, name) for name in (self._topics.detections, self._topics.dead_letters)
        }
        return {
            topic: {str(partition): 0 if from_start else end for partition, end in places.items()}
            for topic, places in ends.items()
        }

    def wait(
        self,
        waiting: set[str],
        marks: Marks,
        patience_s: float,
        watch: Callable[[int], object] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
    ) -> Tally:
        """Take ids out of `waiting` as their outcomes come, until it is empty or nothing came for `patience_s` seconds.

        What is left in `waiting` had no outcome. An image's first outcome counts; those of other images are passed over.
        `watch` is told how many came. Raises `BusyError` if the schema registry does not answer.
        """
        self._consumer.assign(
            [TopicPartition(topic, int(p), offset) for topic, ends in marks.items() for p, offset in ends.items()]
        )
        last = now()
        while waiting and now() - last < patience_s:
            before = len(waiting)
            self._take(self._consumer.consume(_AT_ONCE, timeout=_POLL_S), waiting)
            if len(waiting) < before:
                last = now()
                watch(before - len(waiting))
        return self.tally

    def _take(self, messages: Sequence[Message], waiting: set[str]) -> None:
        good = [message for message in messages if message.error() is None]
        results = [message.value() for message in good if message.topic() == self._topics.detections]
        if results:
            self._take_results(self._codec.decode_run(results, DetectionResult).batch, waiting)
        for message in good:
            if message.topic() == self._topics.dead_letters:
                self._take_letter(message.value(), waiting)

    def _take_results(self, batch: pa.RecordBatch, waiting: set[str]) -> None:
        rows = []
        known = zip(batch.column("image_id").to_pylist(), batch.column("silent").to_pylist(), strict=True)
        for row, (image_id, silent) in enumerate(known):
            if image_id in waiting and not silent:
                waiting.discard(image_id)
                rows.append(row)
        mine = batch.take(pa.array(rows, pa.int32()))
        spans = pc.subtract(mine.column("completed_at").cast("int64"), mine.column("submitted_at").cast("int64"))
        labels = pc.struct_field(pc.list_flatten(mine.column("detections")), "label")
        self.tally.results += len(rows)
        self.tally.latencies_ms.extend(span / 1000 for span in spans.to_pylist())
        self.tally.detections.update(labels.to_pylist())

    def _take_letter(self, value: bytes | None, waiting: set[str]) -> None:
        try:
            letter = self._codec.decode(value, DeadLetter)
        except RejectedError:  # a marker of `streams.dead_letters`, or no letter at all
            return
        if letter.image_id in waiting:
            waiting.discard(letter.image_id)
            self.tally.failures[letter.image_id] = letter.code
