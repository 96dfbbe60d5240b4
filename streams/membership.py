"""A member of a consumer group that reads each partition from where somebody says, not from where the group's offsets say."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.connection import KafkaConnection
from schemas.errors import FatalError
from sinks.base import Extent, Partition
from streams import metrics

log = logging.getLogger(__name__)

# Public constants of the client, whatever their names look like.
_TRUNCATED = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001
_END = KafkaError._PARTITION_EOF  # noqa: SLF001
HOPELESS = {
    KafkaError._AUTHENTICATION,  # noqa: SLF001
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}
_ASK_S = 10.0
# How soon a partition whose queue was full is fetched again. The client's second is longer than a fast sink takes to empty the queue.
_BACKOFF_MS = 20

Handler = Callable[[frozenset[Partition]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipPolicy:
    """Who the member is and how much it reads ahead.

    `instance_id`: stable per slot, so that a restart takes over at once. `protocol`: `classic` (cooperative) or `consumer` (KIP-848).
    `queued_kbytes` bounds what waits in the client's memory, per partition. `tells_end`: see `Membership.ends`. `gather_ms`: how long the
    broker may gather records into one answer, which spares it and us most of the answers; 0 for each at once.
    """

    group: str
    instance_id: str | None = None
    protocol: str = "classic"
    session_timeout_ms: int = 10_000
    queued_kbytes: int = 16_384
    queued_records: int = 20_000
    tells_end: bool = False
    gather_ms: int = 0


class Membership:
    """Consumes `topics`; all handlers run within `fetch` and `close`, on the caller's thread.

    `assigned` names partitions that are ours from now on; nothing of them is read until `read_from`. `revoked` may still commit;
    after `lost` somebody else may own them already.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        topics: Sequence[str],
        policy: MembershipPolicy,
        *,
        assigned: Handler,
        revoked: Handler,
        lost: Handler,
    ) -> None:
        self.group = policy.group
        self._admin = AdminClient(connection.librdkafka())
        self._reading: set[Partition] = set()
        self._held = False
        self._hopeless: KafkaError | None = None
        self._committed: dict[Partition, int] = {}
        self.ends: dict[Partition, int] = {}
        """Where the end of each partition that is being read was when it was last reached, where the policy `tells_end`."""
        self._handlers = {"assign": assigned, "revoke": revoked, "lost": lost}
        self._consumer = Consumer(_settings(connection, policy) | {"error_cb": self._on_error})
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def fetch(self, most: int, timeout_s: float) -> tuple[list[Message], frozenset[Partition]]:
        """Records of partitions that are being read, and those partitions of which the wanted offset does not exist (any more).

        Raises FatalError where going on is of no use.
        """
        good, truncated = [], set()
        for message in self._consumer.consume(most, timeout_s):
            error = message.error()
            if error is None:
                good.append(message)
            elif error.code() == _TRUNCATED:
                truncated.add(Partition(message.topic(), message.partition()))
            elif error.code() == _END:
                self.ends[Partition(message.topic(), message.partition())] = message.offset()
            else:
                self._on_error(error)
        if self._hopeless is not None:
            raise FatalError(f"the consumer cannot go on: {self._hopeless}")
        return good, frozenset(truncated)

    def extent(self, partition: Partition) -> Extent:
        """What the log holds now. Raises KafkaException while the brokers do not say."""
        place = TopicPartition(partition.topic, partition.index)
        low, high = self._consumer.get_watermark_offsets(place, timeout=_ASK_S)
        return Extent(self._topic_id(partition.topic), low, high)

    def read_from(self, partition: Partition, offset: int) -> None:
        """Read a partition that is ours from this offset on."""
        self.stop_reading(partition)
        self._consumer.incremental_assign([TopicPartition(partition.topic, partition.index, offset)])
        self._reading.add(partition)
        (self._consumer.pause if self._held else self._consumer.resume)([_place(partition)])

    def stop_reading(self, partition: Partition) -> None:
        """Read no more of a partition; it remains ours."""
        if partition in self._reading:
            self._consumer.incremental_unassign([_place(partition)])
            self._reading.discard(partition)
            self.ends.pop(partition, None)

    def hold(self, *, held: bool) -> None:
        """Stop the flow, or let it flow again. `fetch` must be called all the same: it keeps the membership alive."""
        if held != self._held:
            (self._consumer.pause if held else self._consumer.resume)(
                [_place(partition) for partition in self._reading]
            )
            self._held = held

    def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """Tell the group where each partition stands; False where that did not work, which costs nothing but a false lag."""
        fresh = {p: offset for p, offset in offsets.items() if self._committed.get(p) != offset}
        if not fresh:
            return True
        try:
            self._consumer.commit(offsets=[_place(p, offset) for p, offset in fresh.items()], asynchronous=False)
        except KafkaException as error:
            log.warning("could not commit: %s", error)
            return False
        self._committed.update(fresh)
        return True

    def measure_lag(self, offsets: Mapping[Partition, int]) -> None:
        """Publish how far each partition is from its end, as far as the client knows without asking."""
        for partition, offset in offsets.items():
            high = self._consumer.get_watermark_offsets(_place(partition), cached=True)[1]
            if high >= 0:
                metrics.LAG.labels(partition.topic, str(partition.index)).set(max(high - offset, 0))

    def close(self) -> None:
        """Leave the group (a member with an instance id keeps its place for the session timeout)."""
        self._consumer.close()

    def _topic_id(self, topic: str) -> str:
        cluster = self._admin.list_topics(topic, timeout=_ASK_S).cluster_id or ""
        if cluster.startswith("mockCluster"):  # the embedded cluster knows no topic ids and dies with its process
            return cluster
        described = self._admin.describe_topics(TopicCollection([topic]), request_timeout=_ASK_S)
        return str(described[topic].result().topic_id)

    def _on_assign(self, consumer: Consumer, places: Sequence[TopicPartition]) -> None:
        consumer.incremental_assign([])
        self._tell("assign", places)

    def _on_revoke(self, consumer: Consumer, places: Sequence[TopicPartition]) -> None:
        self._leave("revoke", consumer, places)

    def _on_lost(self, consumer: Consumer, places: Sequence[TopicPartition]) -> None:
        self._leave("lost", consumer, places)

    def _leave(self, kind: str, consumer: Consumer, places: Sequence[TopicPartition]) -> None:
        self._tell(kind, places)
        gone = {Partition(place.topic, place.partition) for place in places}
        consumer.incremental_unassign([_place(partition) for partition in gone & self._reading])
        self._reading -= gone
        for partition in gone:
            self._committed.pop(partition, None)
            self.ends.pop(partition, None)
            with suppress(KeyError):  # never measured
                metrics.LAG.remove(partition.topic, str(partition.index))

    def _tell(self, kind: str, places: Sequence[TopicPartition]) -> None:
        metrics.REBALANCES.labels(kind).inc()
        log.info("%s: %s", kind, ", ".join(f"{place.topic} [{place.partition}]" for place in places))
        self._handlers[kind](frozenset(Partition(place.topic, place.partition) for place in places))

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in HOPELESS:
            self._hopeless = error
        log.warning("consumer: %s", error)


def _place(partition: Partition, offset: int | None = None) -> TopicPartition:
    return TopicPartition(partition.topic, partition.index, *([] if offset is None else [offset]))


def _settings(connection: KafkaConnection, policy: MembershipPolicy) -> dict[str, object]:
    static = {"group.instance.id": policy.instance_id} if policy.instance_id else {}
    classic = {"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": policy.session_timeout_ms}
    gathering = {"fetch.wait.max.ms": policy.gather_ms, "fetch.min.bytes": 1 << 20} if policy.gather_ms else {}
    return {
        **connection.librdkafka(),
        **static,
        **gathering,
        **(classic if policy.protocol == "classic" else {}),
        "group.protocol": policy.protocol,
        "group.id": policy.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": policy.tells_end,
        "auto.offset.reset": "error",  # a missing offset is an alarm, never a silent jump
        "isolation.level": "read_committed",
        "fetch.max.bytes": policy.queued_kbytes << 10,
        "queued.max.messages.kbytes": policy.queued_kbytes,
        "queued.min.messages": policy.queued_records,
        "fetch.queue.backoff.ms": _BACKOFF_MS,
        "reconnect.backoff.max.ms": 1000,
    }
