"""The one writer of rollouts: reads what the log says, decides, and writes, and nobody else writes in between.

Operators and judges change the same record, and each change depends on the one before. So every change is a transaction under one
transactional id: whoever begins takes the right to write from everybody who began earlier, then reads to the end of the log, and so knows
all that will ever stand before what it writes. Who was overtaken reads again and decides anew.
"""

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.codec import AnyRecord, Codec
from schemas.connection import KafkaConnection
from schemas.errors import BusyError, ConfigurationError, Reason
from schemas.models import ModelStatus, ModelVersion
from schemas.rollouts import Rollout, Verdict
from schemas.topics import Topics
from streams.fold import Fold, Follower, Latest, read_to_end

log = logging.getLogger(__name__)

_ATTEMPTS = 8
_KEPT_VERDICTS = 10_000
_REQUEST_S = 20.0
_TRANSACTION_MS = 30_000
_OVERTAKEN = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})  # noqa: SLF001
_REFUSED = frozenset({KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED})


@dataclass(frozen=True, slots=True)
class Known:
    """What the log says: the last rollout of each model by its name, every version by its reference."""

    rollouts: Mapping[str, Rollout]
    versions: Mapping[str, ModelVersion]


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be written, all of it or nothing."""

    rollout: Rollout | None = None
    versions: tuple[ModelVersion, ...] = ()
    verdict: Verdict | None = None


class RolloutLedger:
    """Reads and changes rollouts. Thread-safe. `group` is never joined, but the clients ask for its coordinator."""

    def __init__(self, connection: KafkaConnection, codec: Codec, topics: Topics, group: str) -> None:
        self.connection, self.codec, self.topics, self.group = connection, codec, topics, group

    def follower(self, rollouts: Latest[Rollout], statuses: Latest[ModelStatus] | None = None) -> Follower:
        """Who keeps `rollouts`, and what workers say of versions, as the log has it."""
        folds: dict[str, Fold[Any]] = {self.topics.rollouts: rollouts}
        if statuses is not None:
            folds[self.topics.model_status] = statuses
        return Follower(self.connection, self.codec, folds, self.group)

    def read(self) -> Known:
        """What the log says now. Raises ConfigurationError where the topics are not there."""
        rollouts, versions = Latest(Rollout), Latest(ModelVersion)
        folds: dict[str, Fold[Any]] = {self.topics.rollouts: rollouts, self.topics.models: versions}
        read_to_end(Follower(self.connection, self.codec, folds, self.group))
        return Known(rollouts.all(), versions.all())

    def verdicts(self) -> list[Verdict]:
        """The newest ones of all rollouts, in the order of the log. Raises ConfigurationError where the topic is not there."""
        newest = _Newest()
        read_to_end(Follower(self.connection, self.codec, {self.topics.verdicts: newest}, self.group))
        return list(newest.verdicts)

    def change(self, decide: Callable[[Known], Change]) -> Change:
        """Write what `decide` makes of what the log says; it is called again where somebody else was faster, and may raise.

        Returns what was written, once Kafka has confirmed it. Raises ConfigurationError where that is not allowed, BusyError where the
        brokers do not answer: then it may have been written or not.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with self._writer() as producer:
                    change = decide(self.read())
                    self._write(producer, change)
                    return change
            except KafkaException as error:
                _raise_unless_overtaken(error)
                log.info("rollouts: somebody else wrote, reads again")
                time.sleep(random.uniform(0, 0.1 * 2**attempt))  # noqa: S311 - no secret
        raise BusyError(Reason.STORAGE_UNAVAILABLE, "others change rollouts all the time", 1.0)

    @contextmanager
    def _writer(self) -> Iterator[Producer]:
        producer = Producer(
            {
                **self.connection.librdkafka(),
                "client.id": self.group,
                "transactional.id": self.topics.rollouts,
                "transaction.timeout.ms": _TRANSACTION_MS,
                "partitioner": "murmur2_random",
                "error_cb": lambda error: log.debug("rollouts: %s", error.str()),
            }
        )
        producer.init_transactions(_REQUEST_S)
        yield producer

    def _write(self, producer: Producer, change: Change) -> None:
        records: list[tuple[str, str, AnyRecord]] = [
            (self.topics.models, version.reference, version) for version in change.versions
        ]
        if change.rollout is not None:
            records.append((self.topics.rollouts, change.rollout.name, change.rollout))
        if change.verdict is not None:
            records.append((self.topics.verdicts, change.verdict.name, change.verdict))
        if not records:
            return
        producer.begin_transaction()
        for topic, key, record in records:
            producer.produce(topic, self.codec.encode(record), key.encode())
        producer.commit_transaction(_REQUEST_S)


class _Newest:
    """A fold that keeps the last records whatever their keys."""

    record = Verdict

    def __init__(self) -> None:
        self.verdicts: deque[Verdict] = deque(maxlen=_KEPT_VERDICTS)

    def put(self, _key: str, record: Verdict) -> None:
        self.verdicts.append(record)

    def forget(self, _key: str) -> None:
        pass  # there are no tombstones on a topic that keeps everything


def _raise_unless_overtaken(error: KafkaException) -> None:
    code = error.args[0].code()
    if code in _REFUSED:
        raise ConfigurationError(f"may not change rollouts: {error.args[0].str()}") from error
    if code not in _OVERTAKEN:
        raise BusyError(Reason.STORAGE_UNAVAILABLE, f"cannot change rollouts: {error.args[0].str()}", 1.0) from error
