"""Creates the catalogue of topics on a cluster, and says where a cluster differs from it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError
from schemas.topics import Topic

_REQUEST_S = 30.0
_LOOK_AGAIN_S = 0.05
# How a partition answers that is created and not yet served.
_NOT_YET = {
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._NOENT,  # noqa: SLF001 - librdkafka's own codes: it found no leader to ask,
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - nor the partition
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which a topic is not as the catalogue has it; `what` is a config's name, `partitions` or `replication`."""

    topic: str
    what: str
    wanted: str
    found: str


@dataclass(frozen=True, slots=True)
class Lag:
    """How far one group is behind on one partition. `committed` is None where it never committed: then `lag` counts all records."""

    group: str
    topic: str
    partition: int
    committed: int | None
    end: int
    lag: int


def unserved_partitions(admin: AdminClient, partitions: Mapping[str, int]) -> set[TopicPartition]:
    """Of topics with so many partitions, those whose leader does not answer yet: the metadata name it before that broker knows of it.

    Raises ConfigurationError for what will not go away by waiting.
    """
    if not partitions:
        return set()
    places = [TopicPartition(name, at) for name, count in partitions.items() for at in range(count)]
    asked = admin.list_offsets({place: OffsetSpec.latest() for place in places}, request_timeout=_REQUEST_S)
    unserved = set()
    for place, future in asked.items():
        try:
            future.result(timeout=_REQUEST_S)
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET:
                raise _refused(place.topic, error) from error
            unserved.add(place)
        except TimeoutError as error:
            raise ConfigurationError(f"{place.topic}: the brokers did not answer within {_REQUEST_S:g} s") from error
    return unserved


def config_of(topic: Topic, replication: int) -> Mapping[str, str]:
    """The settings with which a topic is created; what is not named is left to the cluster.

    Results get the broker's time: it is what the Parquet sink's dates come from, and must not go back or jump with clients'
    clocks. With three replicas or more a write is confirmed by two.
    """
    kept_ms = str(int(topic.retention.total_seconds() * 1000))
    config = (
        {"cleanup.policy": "compact", "delete.retention.ms": kept_ms}
        if topic.compacted
        else {"cleanup.policy": "delete", "retention.ms": kept_ms}
    )
    if topic.record == "DetectionResult":
        config["message.timestamp.type"] = "LogAppendTime"
    if replication >= 3:
        config["min.insync.replicas"] = "2"
    return config


class TopicAdmin:
    """Asks and changes one cluster. Every method raises `ConfigurationError` where the cluster refuses or does not answer."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._admin = AdminClient(connection.librdkafka())

    def create(self, catalogue: Sequence[Topic], replication: int) -> tuple[str, ...]:
        """Create the topics that do not exist, and return their names once a broker serves the whole catalogue.

        Existing ones are left as they are: see `check`.
        """
        wanted = [
            NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=replication,
                config=dict(config_of(topic, replication)),
            )
            for topic in catalogue
        ]
        created = []
        for name, future in self._admin.create_topics(wanted, operation_timeout=_REQUEST_S).items():
            if _created(name, future):
                created.append(name)
        self._await_service({topic.name for topic in catalogue})
        return tuple(created)

    def check(self, catalogue: Sequence[Topic], replication: int) -> tuple[Difference, ...]:
        """Everything in which the cluster differs from the catalogue; extra settings of a topic are not looked at."""
        there = self._shapes()
        missing = [
            Difference(topic.name, "topic", "exists", "missing") for topic in catalogue if topic.name not in there
        ]
        present = [topic for topic in catalogue if topic.name in there]
        configs = self._configs([topic.name for topic in present])
        found = [
            difference
            for topic in present
            for difference in _differences(topic, replication, there[topic.name], configs[topic.name])
        ]
        return (*missing, *found)

    def groups(self, prefix: str) -> tuple[str, ...]:
        """Names of the consumer groups that begin so, sorted."""
        listing = _result("consumer groups", self._admin.list_consumer_groups(request_timeout=_REQUEST_S))
        return tuple(sorted(group.group_id for group in listing.valid if group.group_id.startswith(prefix)))

    def lag(self, groups: Iterable[str], names: Iterable[str]) -> tuple[Lag, ...]:
        """The lag of each group on those partitions of these topics to which it ever committed."""
        wanted = set(names)
        committed = {group: self._committed(group, wanted) for group in groups}
        partitions = sorted({partition for offsets in committed.values() for partition in offsets})
        starts, ends = (self._offsets(partitions, spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest()))
        return tuple(
            Lag(group, *at, offset, ends[at], ends[at] - max(starts[at], offset or 0))
            for group, offsets in committed.items()
            for at, offset in sorted(offsets.items())
        )

    def _await_service(self, names: set[str]) -> None:
        """Return when every partition is served: a topic is created before clients can use it."""
        deadline = time.monotonic() + _REQUEST_S
        while missing := names - self._served(names):
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"created, but not served after {_REQUEST_S:g} s: {', '.join(sorted(missing))}"
                )
            self._admin.poll(_LOOK_AGAIN_S)

    def _served(self, names: set[str]) -> set[str]:
        there = {name: partitions for name, (partitions, _) in self._shapes().items() if name in names}
        unserved = unserved_partitions(self._admin, there)
        return {name for name in there if name not in {place.topic for place in unserved}}

    def _metadata(self) -> Mapping[str, Any]:
        try:
            topics: Mapping[str, Any] = self._admin.list_topics(timeout=_REQUEST_S).topics
        except KafkaException as error:
            raise _refused("the topics", error) from error
        return topics

    def _committed(self, group: str, names: set[str]) -> dict[tuple[str, int], int | None]:
        answer = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group)], request_timeout=_REQUEST_S
        )
        offsets = _result(f"group {group}", answer[group]).topic_partitions
        return {(p.topic, p.partition): p.offset if p.offset >= 0 else None for p in offsets if p.topic in names}

    def _offsets(self, partitions: Sequence[tuple[str, int]], spec: Any) -> dict[tuple[str, int], int]:
        if not partitions:
            return {}
        asked = {TopicPartition(*at): spec for at in partitions}
        answers = self._admin.list_offsets(asked, request_timeout=_REQUEST_S)
        return {(at.topic, at.partition): _result(at.topic, future).offset for at, future in answers.items()}

    def _shapes(self) -> dict[str, tuple[int, int]]:
        """Topic -> partitions and the fewest replicas that one of them has."""
        return {
            name: (len(topic.partitions), min(len(partition.replicas) for partition in topic.partitions.values()))
            for name, topic in self._metadata().items()
            if topic.partitions
        }

    def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        answers = self._admin.describe_configs(resources, request_timeout=_REQUEST_S)
        return {
            resource.name: {name: entry.value for name, entry in _result(resource.name, future).items()}
            for resource, future in answers.items()
        }


def _differences(
    topic: Topic, replication: int, shape: tuple[int, int], config: Mapping[str, str]
) -> Iterable[Difference]:
    if shape[0] != topic.partitions:
        yield Difference(topic.name, "partitions", str(topic.partitions), str(shape[0]))
    if shape[1] != replication:
        yield Difference(topic.name, "replication", str(replication), str(shape[1]))
    for name, wanted in config_of(topic, replication).items():
        if config.get(name) != wanted:
            yield Difference(topic.name, name, wanted, config.get(name, ""))


def _created(name: str, future: "Future[None]") -> bool:
    try:
        future.result(timeout=_REQUEST_S)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise _refused(name, error) from error
    except TimeoutError as error:
        raise ConfigurationError(f"{name}: the brokers did not answer within {_REQUEST_S:g} s") from error
    return True


def _result(what: str, future: "Future[Any]") -> Any:
    try:
        return future.result(timeout=_REQUEST_S)
    except KafkaException as error:
        raise _refused(what, error) from error
    except TimeoutError as error:
        raise ConfigurationError(f"{what}: the brokers did not answer within {_REQUEST_S:g} s") from error


def _refused(what: str, error: KafkaException) -> ConfigurationError:
    return ConfigurationError(f"{what}: {error.args[0].str()}")
