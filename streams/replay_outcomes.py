"""Waits until every image of a replay has its result or its dead letter, and counts what came."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, Message, TopicPartition

from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import Reason, RejectedError
from schemas.records import DeadLetter, DetectionResult, ImageRef
from schemas.replays import ReplayManifest
from schemas.topics import Topics
from streams.replay_lane import is_of
from streams.replay_ledger import whole
from streams.replay_selection import Selection
from streams.replay_source import GROUP, Source

ImageId = tuple[str, str]
"""Tenant and image id."""

_AT_ONCE = 2_000
_POLL_S = 0.2


@dataclass(slots=True)
class ReplayTally:
    """What became of the images. `detections`: boxes per label. `gone`: image id -> URI of images that are no longer there.

    `failures`: image id -> code of its dead letter, for the others that have no result.
    """

    results: int = 0
    detections: Counter[str] = field(default_factory=Counter)
    gone: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def images_of(source: Source, manifest: ReplayManifest) -> set[ImageId]:
    """The images of a manifest, off its topic; an image that was published twice is in it once. About 200 bytes of memory each."""
    images: set[ImageId] = set()
    for stretch in source.read(whole(manifest), Selection.of(manifest)):
        names = (stretch.refs.column(name).to_pylist() for name in ("tenant", "id"))
        images.update(zip(*names, strict=True))
    return images


class ReplayOutcomes:
    """Follows the results and dead letters of one replay from the manifest's marks on, without a consumer group."""

    def __init__(self, connection: KafkaConnection, codec: Codec, topics: Topics, manifest: ReplayManifest) -> None:
        self._connection, self._codec, self._manifest = connection, codec, manifest
        self._results, self._letters = manifest.into or topics.detections, topics.dead_letters
        self.tally = ReplayTally()

    def wait(
        self,
        waiting: set[ImageId],
        patience_s: float,
        watch: Callable[[int], object] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
    ) -> ReplayTally:
        """Take images out of `waiting` as their outcomes come, until it is empty or nothing came for `patience_s` seconds.

        An image's first outcome counts, and only the replay's. `watch` is told how many came. Raises BusyError where the schema registry
        does not answer.
        """
        consumer = Consumer({**self._connection.librdkafka(), **_SETTINGS})
        try:
            consumer.assign(self._places(consumer))
            last = now()
            while waiting and now() - last < patience_s:
                before = len(waiting)
                self._take(consumer.consume(_AT_ONCE, timeout=_POLL_S), waiting)
                if len(waiting) < before:
                    last = now()
                    watch(before - len(waiting))
        finally:
            consumer.close()
        return self.tally

    def _places(self, consumer: Consumer) -> list[TopicPartition]:
        """Every partition, from its mark on; one that was not there when the manifest was made from its beginning."""
        marks = {(mark.topic, mark.partition): mark.offset for mark in self._manifest.marks}
        return [
            TopicPartition(topic, partition, marks.get((topic, partition), 0))
            for topic in (self._results, self._letters)
            for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ]

    def _take(self, messages: Sequence[Message], waiting: set[ImageId]) -> None:
        good = [message for message in messages if message.error() is None]
        results = [message.value() for message in good if message.topic() == self._results]
        if results:
            self._take_results(self._codec.decode_run(results, DetectionResult).batch, waiting)
        for message in good:
            if message.topic() == self._letters:
                self._take_letter(message.value(), waiting)

    def _take_results(self, batch: pa.RecordBatch, waiting: set[ImageId]) -> None:
        mine = batch.filter(pc.equal(batch.column("replay_id"), self._manifest.id).fill_null(fill_value=False))
        names = (mine.column(name).to_pylist() for name in ("tenant", "image_id"))
        rows = []
        for row, image in enumerate(zip(*names, strict=True)):
            if image in waiting:
                waiting.discard(image)
                rows.append(row)
        first = mine.take(pa.array(rows, pa.int32()))
        self.tally.results += len(rows)
        self.tally.detections.update(pc.struct_field(pc.list_flatten(first.column("detections")), "label").to_pylist())

    def _take_letter(self, value: bytes | None, waiting: set[ImageId]) -> None:
        try:
            letter = self._codec.decode(value, DeadLetter)
        except RejectedError:  # a marker of `streams.dead_letters`, or no letter at all
            return
        image = (letter.tenant, letter.image_id)
        if image not in waiting or not is_of([(one.name, one.value) for one in letter.headers], self._manifest.id):
            return
        waiting.discard(image)
        if letter.code == Reason.IMAGE_NOT_FOUND:
            self.tally.gone[letter.image_id] = self._uri(letter)
        else:
            self.tally.failures[letter.image_id] = letter.code

    def _uri(self, letter: DeadLetter) -> str:
        try:
            return self._codec.decode(letter.value, ImageRef).uri
        except RejectedError:
            return ""


_SETTINGS = {
    "client.id": GROUP,
    "group.id": GROUP,
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "log_level": 3,
}
