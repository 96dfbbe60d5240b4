"""A worker says on the log which images it has taken, so that readers need not guess."""

import signal
from pathlib import Path

import pytest

from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.control import WorkerProgress
from schemas.topics import Topics
from tests.e2e.conftest import MakeWorker
from tests.support.deliveries import eventually
from tests.support.kafka import read_topic
from tests.support.pipeline import CODEC, await_outcomes, publish, references

pytestmark = pytest.mark.kafka


def test_the_log_says_how_far_each_partition_was_taken(
    connection: KafkaConnection, topics: Topics, publisher: Publisher, photos: list[Path], make_worker: MakeWorker
) -> None:
    refs = references(photos, 120)
    publish(publisher, refs)
    worker = make_worker(BATCHING_MAX_BATCH="4")
    worker.start()
    await_outcomes(connection, topics, refs)
    ends = {}
    for message in read_topic(connection, topics.online):
        ends[f"{topics.online}/{message.partition()}"] = message.offset() + 1

    def told() -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for message in read_topic(connection, topics.progress):
            said = CODEC.decode(message.value(), WorkerProgress)
            assert message.key().decode() == f"{said.topic}/{said.partition}"
            found.setdefault(message.key().decode(), []).append(said.taken)
        return found

    eventually(lambda: {key: taken[-1] for key, taken in told().items()} == ends, "the last word", 30, pause_s=0.2)
    assert all(taken == sorted(taken) for taken in told().values())
    assert worker.end(signal.SIGTERM) == 0
