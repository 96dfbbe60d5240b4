"""The one writer to Kafka: idempotent, keyed like every Java client, and silent about nothing.

with Publisher.connect("127.0.0.1:9092") as publisher:
    publisher.publish(ImageRef(id=new_image_id(), uri="s3://shop/shelf.jpg", key="camera-7")).result()
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from producers import metrics
from schemas.codec import AnyRecord, Codec, PackagedSchemas
from schemas.connection import KafkaConnection
from schemas.errors import DeliveryError, FatalError, Reason, RejectedError
from schemas.records import EPOCH, ImageRef
from schemas.topics import Topics

log = logging.getLogger(__name__)

_POLL_S = 0.1
_ROOM_S = 0.002
_OVERHEAD_BYTES = 512  # what librdkafka counts beside key and value


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherPolicy:
    """`linger_ms` fills batches, `delivery_timeout_ms` bounds the wait for a confirmation, the buffers bound memory.

    `max_record_bytes`: of value, key and headers together; the topics' `max.message.bytes` must not be smaller.
    """

    linger_ms: int = 5
    compression: str = "zstd"
    delivery_timeout_ms: int = 120_000
    max_buffered_records: int = 20_000
    max_buffered_kbytes: int = 65_536
    max_record_bytes: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where Kafka confirmed a record."""

    topic: str
    partition: int
    offset: int


OnDelivery = Callable[[KafkaError | None, Message], None]
"""librdkafka's own delivery report; called on the publisher's thread, must not block."""


class Publisher:
    """Writes records and waits for their delivery reports on a thread of its own. Thread-safe.

    Records of one key keep the order in which one thread sent them. A full buffer blocks the caller (back-pressure) instead of growing.
    """

    def __init__(
        self, connection: KafkaConnection, codec: Codec, topics: Topics, policy: PublisherPolicy = PublisherPolicy()
    ) -> None:
        self.codec = codec
        self.topics = topics
        self.failure: FatalError | None = None
        self.on_failure: Callable[[FatalError], None] = lambda _: None
        self.max_record_bytes = policy.max_record_bytes - _OVERHEAD_BYTES
        self._producer = Producer(_settings(connection, policy) | {"error_cb": self._on_error})
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="publisher", daemon=True)
        self._poller.start()

    @classmethod
    def connect(cls, bootstrap: str, *, prefix: str = "") -> Self:
        """A publisher to plain-text brokers without a registry, for a service's first lines."""
        return cls(KafkaConnection(bootstrap=bootstrap), Codec(PackagedSchemas()), Topics(prefix))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush(60.0)
        finally:
            self.close()

    def publish(self, ref: ImageRef) -> "Future[Receipt]":
        """Put a reference on its lane's topic; the future holds the receipt once Kafka confirmed it, or a DeliveryError.

        Publishing the same id again gives the same result id again: consumers see it once. Raises ValueError for a reference
        without id or uri.
        """
        if not ref.id or not ref.uri:
            raise ValueError("an ImageRef needs an id and a uri")
        if ref.submitted_at == EPOCH:
            ref = replace(ref, submitted_at=datetime.now(UTC))
        return self._sent(self.topics.lane(ref.lane), ref.ordering_key, ref, f"image {ref.id}")

    def put(self, topic: str, key: str, record: AnyRecord | None) -> "Future[Receipt]":
        """Send one record, or with None a tombstone; the future holds the receipt once Kafka confirmed it, or a DeliveryError.

        Blocks and raises like `send`; ValueError or TypeError where a field does not hold what the record's schema says.
        """
        return self._sent(topic, key, record, f"a record of {key} on {topic}")

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        on_delivery: OnDelivery,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Hand one record to the client; `on_delivery` tells what became of it.

        Blocks while the buffer is full. Raises RejectedError for a record over the size limit, FatalError once the client is dead.
        """
        self._produce(topic, key, value, on_delivery, headers)
        metrics.SENT.labels(topic).inc()

    def send_run(self, topic: str, keys: Sequence[bytes], values: Sequence[bytes], on_delivery: OnDelivery) -> None:
        """Hand many records to the client in order, all with the same delivery report. Blocks and raises like `send`.

        A record at fault stops the run there: those before it are on their way, those after it are not.
        """
        produce = self._producer.produce
        for key, value in zip(keys, values, strict=True):
            try:
                produce(topic, value, key, on_delivery=on_delivery)
            except (BufferError, KafkaException):  # the careful way waits for room, or says what is wrong
                self._produce(topic, key, value, on_delivery)
        metrics.SENT.labels(topic).inc(len(keys))

    def _sent(self, topic: str, key: str, record: AnyRecord | None, name: str) -> "Future[Receipt]":
        future: Future[Receipt] = Future()
        future.set_running_or_notify_cancel()  # what is sent cannot be called back

        def report(error: KafkaError | None, message: Message) -> None:
            if error is None:
                future.set_result(Receipt(message.topic(), message.partition(), message.offset()))
            else:
                future.set_exception(DeliveryError(f"{name} was not confirmed: {error}"))

        self.send(topic, key.encode(), None if record is None else self.codec.encode(record), report)
        return future

    def _produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        on_delivery: OnDelivery,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        while not self._closing.is_set():
            if self.failure is not None:
                raise self.failure
            try:
                self._producer.produce(topic, value, key, on_delivery=on_delivery, headers=list(headers) or None)
            except BufferError:
                self._closing.wait(_ROOM_S)
            except KafkaException as error:
                raise _rejection(error) from error
            else:
                return
        raise FatalError("the publisher is closed")

    def serves(self, topic: str, patience_s: float = 5.0) -> bool:
        """Whether there is such a topic. Waits while the brokers do not answer. Raises FatalError once the client is dead."""
        while not self._closing.is_set():
            if self.failure is not None:
                raise self.failure
            try:
                listed = self._producer.list_topics(topic, timeout=patience_s).topics[topic]
            except KafkaException as error:
                log.warning("producer: the brokers do not answer: %s", error)
            else:
                return listed.error is None and bool(listed.partitions)
        raise FatalError("the publisher is closed")

    def flush(self, timeout_s: float) -> None:
        """Wait until every record sent so far has its delivery report; raises DeliveryError where some still have none."""
        left = self._producer.flush(timeout_s)
        if self.failure is not None:
            raise self.failure
        if left:
            raise DeliveryError(f"{left} records were not confirmed within {timeout_s:g} s")

    def close(self) -> None:
        """Stop the thread. Records not yet delivered are given up; `flush` first to keep them."""
        self._closing.set()
        self._poller.join()
        with contextlib.suppress(KafkaException):
            self._producer.purge()
        self._producer.flush(1.0)

    def __len__(self) -> int:
        """Records handed over and not yet reported on."""
        return len(self._producer)

    def _poll(self) -> None:
        while not self._closing.is_set():
            try:
                self._producer.poll(_POLL_S)
            except Exception as error:  # a delivery report raised: whoever waits for it would wait for ever
                self._die(f"a delivery report was lost: {error!r}")
                log.critical("a delivery report raised", exc_info=error)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._die(f"the Kafka producer failed for good: {error}")
            log.critical("producer is dead", extra={"error": str(error)})
        else:
            log.warning("producer: %s", error)

    def _die(self, why: str) -> None:
        self.failure = FatalError(why)
        self.on_failure(self.failure)


def _settings(connection: KafkaConnection, policy: PublisherPolicy) -> dict[str, Any]:
    return {
        **connection.librdkafka(),
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",  # as Java, aiokafka and Faust: one key, one partition, whoever writes it
        "compression.type": policy.compression,
        "linger.ms": policy.linger_ms,
        "delivery.timeout.ms": policy.delivery_timeout_ms,
        "queue.buffering.max.messages": policy.max_buffered_records,
        "queue.buffering.max.kbytes": policy.max_buffered_kbytes,
        "message.max.bytes": policy.max_record_bytes,
    }


def _rejection(error: KafkaException) -> Exception:
    code = error.args[0].code()
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        return RejectedError(Reason.RECORD_TOO_LARGE, f"the record does not fit on the topic: {error.args[0]}")
    return FatalError(f"the Kafka producer refused a record: {error.args[0]}")
