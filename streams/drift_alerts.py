"""The topic `drift`: what has been said, and saying more, each alert once whoever watches."""

import logging
import random
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.drift import DriftAlert
from schemas.errors import BusyError, ConfigurationError, Reason, RejectedError
from streams.ends import end_offsets

log = logging.getLogger(__name__)

_ATTEMPTS = 8
_REQUEST_S = 20.0
_TRANSACTION_MS = 30_000
_POLL_S = 0.2
_STALL_S = 30.0
_REMEMBERED = 100_000
_OVERTAKEN = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})  # noqa: SLF001
_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - a public constant of the client, whatever its name looks like


class DriftAlerts:
    """Reads and writes alerts. Not thread-safe. `group` is never joined, but the client asks for its coordinator.

    Alerts are written in a transaction under one transactional id for each baseline: whoever begins one takes the right to write from
    everybody who began earlier, reads to the end of the topic, and writes what is not there. So nothing is said twice: not after a crash
    between an alert and its checkpoint, and not by two watchers.
    """

    def __init__(self, connection: KafkaConnection, codec: Codec, topic: str, group: str) -> None:
        self._connection, self._codec, self._topic, self._group = connection, codec, topic, group
        self._said: OrderedDict[str, None] = OrderedDict()
        self._positions: dict[int, int] = {}

    def read(self) -> Iterator[DriftAlert]:
        """The alerts that were written since this was last asked, all of them at first. Raises ConfigurationError, BusyError."""
        consumer = Consumer(self._settings())
        try:
            ends = {
                index: end
                for index, end in end_offsets(consumer, self._topic).items()
                if end > self._positions.get(index, 0)
            }
            if ends:
                starts = [TopicPartition(self._topic, index, self._positions.get(index, 0)) for index in ends]
                consumer.assign(starts)
                yield from self._drain(consumer, ends)
        finally:
            consumer.close()

    def write(self, alerts: Sequence[DriftAlert]) -> list[DriftAlert]:
        """Write those that nobody has written yet; returns them once Kafka has confirmed them.

        Raises ConfigurationError where that is not allowed, BusyError where the brokers do not answer: then they may stand there or not.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return self._write(alerts)
            except KafkaException as error:
                if error.args[0].code() not in _OVERTAKEN:
                    raise _remedy(error) from error
                log.info("drift: another watcher wrote, reads again")
                time.sleep(random.uniform(0, 0.1 * 2**attempt))  # noqa: S311 - no secret
        raise BusyError(Reason.STORAGE_UNAVAILABLE, "others write alerts all the time", 1.0)

    def _write(self, alerts: Sequence[DriftAlert]) -> list[DriftAlert]:
        producer = Producer(
            {
                **self._connection.librdkafka(),
                "client.id": self._group,
                "transactional.id": f"{self._topic}-{alerts[0].baseline_id}",
                "transaction.timeout.ms": _TRANSACTION_MS,
                "partitioner": "murmur2_random",
                "error_cb": lambda error: log.debug("drift: %s", error.str()),
            }
        )
        producer.init_transactions(_REQUEST_S)
        fresh = self._not_said(alerts)
        if fresh:
            producer.begin_transaction()
            for alert in fresh:
                producer.produce(self._topic, self._codec.encode(alert), alert.tenant.encode())
            producer.commit_transaction(_REQUEST_S)
        producer.close()  # not after a failure: it would try to abort, which one that was overtaken cannot
        return fresh

    def _not_said(self, alerts: Sequence[DriftAlert]) -> list[DriftAlert]:
        self._said.update((alert.id, None) for alert in self.read())
        while len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        return [alert for alert in alerts if alert.id not in self._said]

    def _drain(self, consumer: Consumer, ends: dict[int, int]) -> Iterator[DriftAlert]:
        left, last = set(ends), time.monotonic()
        while left:
            messages = consumer.consume(1_000, _POLL_S)
            last = time.monotonic() if messages else last
            if time.monotonic() - last > _STALL_S:
                raise BusyError(Reason.STORAGE_UNAVAILABLE, f"the end of {self._topic} was not reached", 1.0)
            for message in messages:
                index = message.partition()
                if message.error() is None and message.offset() < ends[index]:
                    self._positions[index] = message.offset() + 1
                    yield from self._decoded(message.value(), message.offset())
                at_end = message.error() is not None and message.error().code() == _END
                if at_end or (message.error() is None and message.offset() >= ends[index] - 1):
                    self._positions[index] = max(self._positions.get(index, 0), ends[index])
                    left.discard(index)

    def _decoded(self, value: bytes | None, offset: int) -> Iterator[DriftAlert]:
        try:
            yield self._codec.decode(value, DriftAlert)
        except RejectedError as error:
            log.warning("drift: passes over the record at %d, which is no alert: %s", offset, error)

    def _settings(self) -> dict[str, object]:
        return {
            **self._connection.librdkafka(),
            "client.id": self._group,
            "group.id": self._group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "error_cb": lambda error: log.debug("drift: %s", error.str()),
        }


def _remedy(error: KafkaException) -> ConfigurationError | BusyError:
    said = error.args[0]
    if said.code() in (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED):
        return ConfigurationError(f"may not write alerts: {said.str()}")
    return BusyError(Reason.STORAGE_UNAVAILABLE, f"cannot write alerts: {said.str()}", 1.0)
