"""Folds compacted topics: reads them from their beginning to their end, then follows, so that a process knows what their last records say.

versions = Latest(ModelVersion)
follower = Follower(connection, codec, {topics.models: versions}, f"{group}.models")
read_to_end(follower)                       # a command: once
threaded(follower.run, "models")            # a service: `follower.complaint` is its readiness
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.codec import Codec, Record
from schemas.connection import KafkaConnection
from schemas.errors import BusyError, ConfigurationError, RejectedError

log = logging.getLogger(__name__)

_POLL_S = 0.2
_ASK_S = 5.0
_REQUEST_S = 2.0
_PAUSE_S = 1.0
_LOOK_AGAIN_S = 0.02
_FOLLOWING_MS, _HURRIED_MS = 500, 20
_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of the client, whatever its name looks like

_Place = tuple[str, int]


class Fold(Protocol[Record]):
    """What becomes of the records of one topic. Called on the follower's thread, in the order of the log; must not block."""

    @property
    def record(self) -> type[Record]:
        """What the topic's values are."""

    def put(self, key: str, record: Record) -> None:
        """The log says this under `key`. The same may come again."""

    def forget(self, key: str) -> None:
        """The log says that there is nothing under `key` any more; perhaps there never was."""


class Latest(Generic[Record]):
    """The last record of each key. One thread folds, any may ask.

    `changed` is called on the follower's thread with the key and what is under it now (None: nothing any more), after it can be asked for.
    """

    def __init__(
        self, record: type[Record], changed: Callable[[str, Record | None], None] = lambda _key, _record: None
    ) -> None:
        self.record: type[Record] = record
        self._changed: Callable[[str, Record | None], None] = changed
        self._records: dict[str, Record] = {}

    def get(self, key: str) -> Record | None:
        """What is under a key."""
        return self._records.get(key)

    def all(self) -> dict[str, Record]:
        """Everything, as it is now, in the order of the keys."""
        return dict(sorted(self._records.items(), key=lambda item: item[0]))

    def put(self, key: str, record: Record) -> None:
        """Take what the log says."""
        self._records[key] = record
        self._changed(key, record)

    def forget(self, key: str) -> None:
        """The log says that there is nothing any more."""
        if self._records.pop(key, None) is not None:
            self._changed(key, None)


class Follower:
    """A thread that folds topics, each into its own fold: all of them at first, then whatever is added.

    Records of one partition are folded in their order; between topics there is none. It survives the loss of the brokers. How old the
    knowledge is `age_s` tells: it asks every few seconds where the topics end, so that "nothing new" and "no answer" are not the same.
    A record that cannot be read is logged and skipped. `group` is never joined, but the client asks for its coordinator.
    `fetch_wait_ms`: how long a broker may hold an answer while there is nothing new, and so how late the end of a topic is known.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        codec: Codec,
        folds: Mapping[str, Fold[Any]],
        group: str,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection, self._codec, self._folds, self._group, self._now = connection, codec, folds, group, now
        self.fetch_wait_ms = _FOLLOWING_MS
        self._name = ", ".join(sorted(folds))
        self._ends: dict[_Place, int] = {}
        self._position: dict[_Place, int] = {}
        self._assigned = False
        self._asked_at = float("-inf")
        self._current_at: float | None = None

    @property
    def topics(self) -> tuple[str, ...]:
        """What it folds."""
        return tuple(self._folds)

    @property
    def age_s(self) -> float | None:
        """Seconds since it was known that nothing is missing; None before that was known at all."""
        return None if self._current_at is None else self._now() - self._current_at

    def complaint(self) -> str | None:
        """None once all has been read; for readiness."""
        return f"has not read {self._name}" if self._current_at is None else None

    def run(self, stop: threading.Event) -> None:
        """Follow until `stop`; on a thread of its own. Another time it goes on where it was. Raises whatever a fold raises."""
        self._ends, self._assigned = {}, False
        consumer = Consumer(self._settings())
        try:
            while not stop.is_set():
                if self._now() - self._asked_at >= _ASK_S or not self._ends:
                    self._ask(consumer, stop)
                message = consumer.poll(_POLL_S)
                if message is not None:
                    self._take(message, stop)
                self._judge()
        finally:
            consumer.close()

    def _settings(self) -> dict[str, Any]:
        return {
            **self._connection.librdkafka(),
            "client.id": self._group,
            "group.id": self._group,  # never joined nor committed to
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,  # a compacted topic may end in records that are no longer there
            "fetch.wait.max.ms": self.fetch_wait_ms,
            "reconnect.backoff.max.ms": 1000,
            "error_cb": lambda error: log.warning("%s: %s", self._name, error.str()),
        }

    def _ask(self, consumer: Consumer, stop: threading.Event) -> None:
        """Where the topics end now; begin to read them where that has not begun."""
        try:
            if not self._assigned:
                self._begin(consumer)
            ends = {
                place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=_REQUEST_S)
                for place in self._position
            }
        except KafkaException as error:
            log.warning("%s: the brokers do not answer: %s", self._name, error)
            stop.wait(_PAUSE_S)
            return
        self._asked_at = self._now()
        self._ends = {place: high for place, (_, high) in ends.items()}
        for place, (low, _) in ends.items():
            self._position[place] = max(self._position[place], low)

    def _begin(self, consumer: Consumer) -> None:
        places = [place for topic in self._folds for place in _partitions(consumer, topic)]
        self._position = {place: self._position.get(place, 0) for place in places}
        consumer.assign([TopicPartition(*place, offset) for place, offset in self._position.items()])
        self._assigned = True

    def _take(self, message: Message, stop: threading.Event) -> None:
        error, place = message.error(), (message.topic(), message.partition())
        if error is None:
            self._fold_patiently(message, stop)
            self._position[place] = message.offset() + 1
        elif error.code() == _END:
            self._position[place] = message.offset()
        else:
            log.warning("%s: %s", self._name, error.str())

    def _fold_patiently(self, message: Message, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                return self._fold(message)
            except BusyError as error:  # the registry: without it nobody knows what this record says
                log.warning("%s: waits: %s", message.topic(), error)
                stop.wait(max(error.retry_after_s, _PAUSE_S))
        return None

    def _fold(self, message: Message) -> None:
        fold, key = self._folds[message.topic()], (message.key() or b"").decode(errors="replace")
        if message.value() is None:
            fold.forget(key)
            return
        try:
            record = self._codec.decode(message.value(), fold.record)
        except RejectedError as error:
            place = {"partition": message.partition(), "offset": message.offset(), "code": error.reason}
            log.error("%s: a record cannot be read: %s", message.topic(), error, extra=place)  # noqa: TRY400 - no more to say
        else:
            fold.put(key, record)

    def _judge(self) -> None:
        """Nothing is missing as of when it was asked, once all up to the ends of then has been read."""
        if self._ends and all(self._position[place] >= end for place, end in self._ends.items()):
            self._current_at = max(self._current_at or self._asked_at, self._asked_at)


def read_to_end(follower: Follower, patience_s: float = 20.0) -> None:
    """Fold what the topics hold now, and no more; for commands. Raises ConfigurationError where that does not succeed in time."""
    follower.fetch_wait_ms = _HURRIED_MS
    stop = threading.Event()
    thread = threading.Thread(target=follower.run, args=(stop,), name="fold", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + patience_s
        while follower.age_s is None:
            if time.monotonic() > deadline or not thread.is_alive():
                names = " and ".join(follower.topics)
                raise ConfigurationError(f"cannot read {names}: is it there (`sightstream topics check`)?")
            stop.wait(_LOOK_AGAIN_S)
    finally:
        stop.set()
        thread.join()


def _partitions(consumer: Consumer, topic: str) -> list[_Place]:
    listed = consumer.list_topics(topic, timeout=_REQUEST_S).topics[topic]
    if listed.error is not None or not listed.partitions:
        raise KafkaException(listed.error or KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    return [(topic, index) for index in sorted(listed.partitions)]
