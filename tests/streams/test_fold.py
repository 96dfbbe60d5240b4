"""Compacted topics folded: all of them at first, then whatever is added, on a real Kafka."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError
from schemas.models import ModelVersion, Stage
from schemas.rollouts import Rollout
from schemas.topics import Topics
from streams.fold import Follower, Latest, read_to_end
from tests.support.deliveries import eventually

pytestmark = pytest.mark.kafka
ONE = ModelVersion(name="yolo", version="1", metrics={"map": 0.37}, lineage={"recipe": "a"})


@contextmanager
def following(follower: Follower) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=follower.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def test_several_topics_are_read_to_their_ends_and_then_followed(
    connection: KafkaConnection, codec: Codec, topics: Topics, publisher: Publisher, group: str
) -> None:
    told: list[tuple[str, ModelVersion | None]] = []
    versions, rollouts = Latest(ModelVersion, lambda *change: told.append(change)), Latest(Rollout)
    follower = Follower(connection, codec, {topics.models: versions, topics.rollouts: rollouts}, group)
    assert follower.complaint() == f"has not read {topics.models}, {topics.rollouts}"
    two = replace(ONE, version="2", stage=Stage.STABLE)
    sent = [
        publisher.put(topics.models, two.reference, two),
        publisher.put(topics.models, ONE.reference, replace(ONE, licence="first said")),
        publisher.put(topics.models, ONE.reference, ONE),
        publisher.put(topics.rollouts, "yolo", Rollout(id="r1", name="yolo")),
    ]
    assert [receipt.result(60).offset for receipt in sent[:3]] == [0, 1, 2]
    with following(follower):
        eventually(lambda: follower.complaint() is None, "both were read", timeout_s=60)
        assert versions.all() == {"yolo@1": ONE, "yolo@2": two}
        assert list(versions.all()) == ["yolo@1", "yolo@2"]
        assert rollouts.get("yolo") == Rollout(id="r1", name="yolo")
        publisher.put(topics.models, ONE.reference, None).result(60)
        publisher.put(topics.models, "never@1", None).result(60)
        publisher.put(topics.rollouts, "yolo", Rollout(id="r2", name="yolo")).result(60)
        eventually(lambda: rollouts.all() == {"yolo": Rollout(id="r2", name="yolo")}, "what is new", timeout_s=60)
        eventually(lambda: versions.get("yolo@1") is None, "the tombstone", timeout_s=60)
    assert [key for key, _ in told] == ["yolo@2", "yolo@1", "yolo@1", "yolo@1"]
    assert told[-1] == ("yolo@1", None)


def test_a_command_reads_once_and_an_unreadable_record_costs_no_other(
    connection: KafkaConnection, codec: Codec, topics: Topics, publisher: Publisher, group: str
) -> None:
    versions = Latest(ModelVersion)
    publisher.send(topics.models, b"broken", b"not Avro", lambda *_: None)
    publisher.put(topics.models, ONE.reference, ONE).result(60)
    read_to_end(Follower(connection, codec, {topics.models: versions}, group), patience_s=60)
    assert versions.all() == {"yolo@1": ONE}


def test_a_service_reads_to_the_end_before_it_starts_and_goes_on_there(
    connection: KafkaConnection, codec: Codec, topics: Topics, publisher: Publisher, group: str
) -> None:
    told: list[str] = []
    follower = Follower(
        connection, codec, {topics.models: Latest(ModelVersion, lambda key, _: told.append(key))}, group
    )
    publisher.put(topics.models, "yolo@1", ONE).result(60)
    read_to_end(follower, patience_s=60)
    with following(follower):
        publisher.put(topics.models, "yolo@2", replace(ONE, version="2")).result(60)
        eventually(lambda: told == ["yolo@1", "yolo@2"], "each record once", timeout_s=60)


def test_a_topic_that_is_not_there_is_said(connection: KafkaConnection, codec: Codec, group: str) -> None:
    follower = Follower(connection, codec, {"nowhere": Latest(ModelVersion)}, group)
    with pytest.raises(ConfigurationError, match=r"cannot read nowhere: is it there \(`sightstream topics check`\)\?"):
        read_to_end(follower, patience_s=0.5)
