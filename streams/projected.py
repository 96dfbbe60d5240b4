"""Records of all topics that the result store follows, as the changes that they make to it."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from confluent_kafka import Message

from schemas.codec import Codec
from schemas.control import Batch, Deletion, WorkerProgress
from schemas.errors import RejectedError
from schemas.records import DeadLetter, DetectionResult, ImageRef
from schemas.topics import Topics
from sinks.base import Partition, ResultRun
from sinks.store_columns import completions, loss, redriven_offset, submissions
from sinks.store_fold import Advance, Changes
from sinks.store_records import NOT_REDRIVEN, complaint
from streams.dead_letters import REDRIVE_OF

log = logging.getLogger(__name__)

Control = TypeVar("Control", DeadLetter, Batch, Deletion, WorkerProgress)
Run = tuple[Partition, Sequence[Message]]
"""Consecutive records of one partition."""


def followed_topics(topics: Topics) -> tuple[str, ...]:
    """What the result store is made of."""
    return (
        topics.online,
        topics.bulk,
        topics.detections,
        topics.dead_letters,
        topics.batches,
        topics.deletions,
        topics.progress,
    )


class LogReader:
    """Decodes runs. A record that cannot be read or kept is passed over, counted in `rejected` and logged: the log keeps it."""

    def __init__(
        self, codec: Codec, topics: Topics, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self.topics = topics
        self.rejected = 0
        self._codec, self._now_ms = codec, now_ms
        self._readers: Mapping[str, Callable[[Partition, Sequence[Message], Changes], None]] = {
            topics.online: self._submissions,
            topics.bulk: self._submissions,
            topics.detections: self._completions,
            topics.dead_letters: self._losses,
            topics.batches: self._batches,
            topics.deletions: self._deletions,
            topics.progress: self._taken,
        }

    def changes(self, runs: Sequence[Run], positions: Mapping[Partition, int]) -> Changes:
        """What the records of these runs change, from each partition's position on. Raises BusyError where the registry does not answer."""
        moved: dict[Partition, Advance] = {}
        changes = Changes()
        self.rejected = 0
        for partition, messages in runs:
            start = moved[partition].after if partition in moved else positions[partition]
            fresh = [message for message in messages if message.offset() >= start]
            if not fresh:
                continue
            end, read_us = fresh[-1].offset() + 1, self._stamp_ms(fresh[-1]) * 1000
            moved[partition] = Advance(partition, positions[partition], end, read_us)
            kept = [message for message in fresh if message.value() is not None]
            if kept:
                self._readers[partition.topic](partition, kept, changes)
        return replace(changes, advances=tuple(sorted(moved.values(), key=lambda step: step.partition)))

    def _submissions(self, partition: Partition, messages: Sequence[Message], changes: Changes) -> None:
        run, index = self._run(partition, messages, ImageRef)
        redriven = [_redriven(messages[at]) for at in index]
        for record in submissions(run, redriven):
            names = {"tenant": record.tenant, "id": record.id, "key": record.key, "batch_id": record.batch_id}
            if self._fits(partition, record.source.offset, names):
                changes.submissions.append(record)

    def _completions(self, partition: Partition, messages: Sequence[Message], changes: Changes) -> None:
        run, _ = self._run(partition, messages, DetectionResult)
        for offset, record in zip(run.offsets.tolist(), completions(run), strict=True):
            image = record.submission
            names = {"tenant": image.tenant, "id": image.id, "key": image.key, "batch_id": image.batch_id}
            if self._fits(partition, offset, names) and self._fits(partition, offset, {"id": record.id}):
                changes.completions.append(record)

    def _losses(self, partition: Partition, messages: Sequence[Message], changes: Changes) -> None:
        for message in messages:
            letter = self._decoded(partition, message, DeadLetter)
            record = loss(letter, message.offset(), self._ref, REDRIVE_OF) if letter else None
            if record is None:
                continue
            image = record.submission
            names = {"tenant": image.tenant, "id": image.id, "key": image.key, "batch_id": image.batch_id}
            if self._fits(partition, message.offset(), names):
                changes.losses.append(record)

    def _batches(self, partition: Partition, messages: Sequence[Message], changes: Changes) -> None:
        for message in messages:
            batch = self._decoded(partition, message, Batch)
            if batch and self._fits(partition, message.offset(), {"tenant": batch.tenant, "id": batch.id}):
                changes.batches.append(batch)

    def _deletions(self, partition: Partition, messages: Sequence[Message], changes: Changes) -> None:
        for message in messages:
            deletion = self._decoded(partition, message, Deletion)
            if deletion and self._fits(
                partition, message.offset(), {"tenant": deletion.tenant, "id": deletion.image_id}
            ):
                changes.deletions.append(deletion)

    def _taken(self, partition: Partition, messages: Sequence[Message], changes: Changes) -> None:
        for message in messages:
            progress = self._decoded(partition, message, WorkerProgress)
            if progress is not None:
                changes.taken.append(progress)

    def _run(
        self, partition: Partition, messages: Sequence[Message], record: type[ImageRef] | type[DetectionResult]
    ) -> tuple[ResultRun, list[int]]:
        decoded = self._codec.decode_run([message.value() for message in messages], record)
        for at, error in decoded.rejected:
            self._reject(partition, messages[at].offset(), str(error))
        offsets = np.array([message.offset() for message in messages], np.int64)
        stamps = np.array([self._stamp_ms(message) for message in messages], np.int64)
        first, last = int(offsets[0]), int(offsets[-1])
        index = decoded.index
        return ResultRun(partition, first, last + 1, decoded.batch, offsets[index], stamps[index]), index.tolist()

    def _decoded(self, partition: Partition, message: Message, record: type[Control]) -> Control | None:
        try:
            return self._codec.decode(message.value(), record)
        except RejectedError as error:
            self._reject(partition, message.offset(), str(error))
            return None

    def _ref(self, value: bytes) -> ImageRef | None:
        try:
            return self._codec.decode(value, ImageRef)
        except RejectedError:
            return None

    def _fits(self, partition: Partition, offset: int, names: Mapping[str, str | None]) -> bool:
        why = complaint(**names)
        if why is not None:
            self._reject(partition, offset, why)
        return why is None

    def _reject(self, partition: Partition, offset: int, why: str) -> None:
        self.rejected += 1
        place = {"topic": partition.topic, "partition": partition.index, "offset": offset}
        log.warning("store: passes over a record: %s", why, extra=place)

    def _stamp_ms(self, message: Message) -> int:
        stamp: int = message.timestamp()[1]
        return stamp if stamp > 0 else self._now_ms()


def _redriven(message: Message) -> int:
    headers = message.headers()
    if not headers:
        return NOT_REDRIVEN
    return max((redriven_offset(value) for name, value in headers if name == REDRIVE_OF), default=NOT_REDRIVEN)
