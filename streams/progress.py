"""Says on a topic how far the lanes have been taken, so that readers know which images are being processed and which still wait."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from confluent_kafka import KafkaError, Message
from faust.types import TP

from producers.publisher import Publisher
from schemas.control import WorkerProgress

log = logging.getLogger(__name__)


class ProgressReporter:
    """Publishes what changed since the last report. Losing a record costs a late word, never work: errors are logged, and said again."""

    def __init__(self, publisher: Publisher, group: str, now: Callable[[], datetime]) -> None:
        self._publisher, self._group, self._now = publisher, group, now
        self._reported: dict[TP, int] = {}
        self._complained = False

    def report(self, taken: Mapping[TP, int]) -> None:
        """`taken`: partition -> the next offset that no batch has taken. Those that are not in it are not this worker's any more."""
        for tp, offset in taken.items():
            if self._reported.get(tp) != offset:
                self._send(tp, offset)
        self._reported = dict(taken)

    def _send(self, tp: TP, offset: int) -> None:
        record = WorkerProgress(topic=tp.topic, partition=tp.partition, taken=offset, group=self._group, at=self._now())
        key = f"{tp.topic}/{tp.partition}".encode()
        publisher = self._publisher
        publisher.send(publisher.topics.progress, key, publisher.codec.encode(record), self._delivered)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        """Once: a topic that is missing would be missed five times a second."""
        if error is not None and not self._complained:
            self._complained = True
            log.warning("progress is not told: %s", error)
