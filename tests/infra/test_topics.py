"""`sightstream topics` on a real Kafka: created once, compared with the catalogue, lag told."""

import json
import time
import uuid
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from infra.broker.local import LocalKafka
from infra.commands.topics import command
from infra.settings import Settings
from infra.topics import Difference, TopicAdmin, config_of
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.records import ImageRef
from schemas.topics import Topics
from tests.support.kafka import delete_topics

pytestmark = pytest.mark.kafka


@pytest.fixture
def fresh(connection: KafkaConnection) -> Iterator[Topics]:
    """A prefix under which nothing exists yet."""
    topics = Topics(f"t{uuid.uuid4().hex[:10]}.")
    yield topics
    delete_topics(connection, [topic.name for topic in topics.catalogue()])


def run(connection: KafkaConnection, topics: Topics, *arguments: str, **settings: object) -> Result:
    values = {"kafka.bootstrap": connection.bootstrap, "kafka.prefix": topics.prefix, **settings}
    return CliRunner().invoke(command, arguments, obj=Settings().overriding(values))


def alter(connection: KafkaConnection, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient(connection.librdkafka())
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)


def test_create_is_idempotent_and_check_agrees(connection: KafkaConnection, fresh: Topics) -> None:
    before = run(connection, fresh, "check")
    assert before.exit_code == 1
    assert before.output.count("topic should be exists, is missing") == len(fresh.catalogue())
    first, second = run(connection, fresh, "create"), run(connection, fresh, "create")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.output.count(": created") == second.output.count(": exists") == len(fresh.catalogue())
    after = run(connection, fresh, "check")
    assert (after.exit_code, after.output) == (0, f"{len(fresh.catalogue())} topics are as they should be\n")


def test_check_says_each_difference(connection: KafkaConnection, fresh: Topics) -> None:
    admin, catalogue = TopicAdmin(connection), fresh.catalogue(2)
    admin.create(catalogue, replication=1)
    alter(connection, fresh.detections, "message.timestamp.type", "CreateTime")
    alter(connection, fresh.online, "retention.ms", "1000")
    client = AdminClient(connection.librdkafka())
    for future in client.create_partitions([NewPartitions(fresh.bulk, 3)]).values():
        future.result(30)
    wanted = {
        Difference(fresh.detections, "message.timestamp.type", "LogAppendTime", "CreateTime"),
        Difference(fresh.online, "retention.ms", str(7 * 86_400_000), "1000"),
        Difference(fresh.bulk, "partitions", "2", "3"),
    }
    deadline = time.monotonic() + 30
    while (
        found := set(admin.check(catalogue, replication=1))
    ) != wanted:  # the controller knows before the broker does
        assert time.monotonic() < deadline, found
    told = run(connection, fresh, "check", **{"kafka.partitions": 2})
    assert told.exit_code == 1
    assert f"{fresh.bulk}: partitions should be 2, is 3" in told.output
    assert run(connection, fresh, "check", **{"kafka.partitions": 2, "kafka.replication": 3}).exit_code == 1


def test_replication_beyond_the_brokers_is_refused_in_one_line(connection: KafkaConnection, fresh: Topics) -> None:
    failed = run(connection, fresh, "create", **{"kafka.replication": 3})
    assert failed.exit_code == 1
    assert "replication factor" in str(failed.exception).lower()


def test_three_replicas_are_confirmed_by_two(three_brokers: LocalKafka) -> None:
    connection = KafkaConnection(bootstrap=three_brokers.bootstrap)
    admin, catalogue = TopicAdmin(connection), Topics("r3.").catalogue(2)
    assert len(admin.create(catalogue, replication=3)) == len(catalogue)
    assert admin.check(catalogue, replication=3) == ()
    assert config_of(catalogue[0], 3)["min.insync.replicas"] == "2"
    assert "min.insync.replicas" not in config_of(catalogue[0], 1)


def test_lag_is_what_each_group_has_still_to_read(
    connection: KafkaConnection, publisher: Publisher, topics: Topics, group: str
) -> None:
    receipts = [publisher.publish(ImageRef(id=f"i{n}", uri="s3://b/k", key="one")).result(30) for n in range(10)]
    partition = receipts[0].partition
    consumer = Consumer({**connection.librdkafka(), "group.id": group, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(topics.online, partition, 4)], asynchronous=False)
    consumer.close()
    told = run(connection, topics, "lag", "--json", "--group", group)
    assert [json.loads(line) for line in told.output.splitlines()] == [
        {"group": group, "topic": topics.online, "partition": partition, "committed": 4, "end": 10, "lag": 6}
    ]
    table = run(connection, topics, "lag", **{"kafka.group": group})
    assert table.output.splitlines()[0].split() == ["group", "topic", "partition", "committed", "end", "lag"]
    assert table.output.splitlines()[-1] == "total lag: 6"
    assert "no group" in run(connection, topics, "lag", "--group", f"{group}.none").output
