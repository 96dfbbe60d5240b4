"""Workers that join and leave under load, brokers that die, producers that abort: nothing lost, and no copy where nobody was killed."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import Producer

from infra.broker.local import LocalKafka
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.topics import Topics
from tests.e2e.conftest import MakeWorker
from tests.support.load import await_members, own_topics, steady_load
from tests.support.pipeline import (
    CODEC,
    Outcomes,
    await_more,
    await_outcomes,
    outcome_counter,
    publish,
    references,
    with_missing,
    worker_process,
)

pytestmark = [pytest.mark.kafka, pytest.mark.kill]

# Small batches, so that there is work in flight at every moment.
SETTINGS = {"BATCHING_MAX_BATCH": "4", "BATCHING_MAX_WAITING": "200"}


def test_a_second_worker_joins_and_leaves_twice_without_a_copy(  # noqa: PLR0917 - fixtures
    connection: KafkaConnection,
    topics: Topics,
    publisher: Publisher,
    photos: list[Path],
    make_worker: MakeWorker,
    group: str,
    chance: Random,
) -> None:
    first, second = make_worker(**SETTINGS), make_worker(**SETTINGS)
    with steady_load(publisher, photos, chance) as published:
        first.start()
        for _ in range(2):
            await_members(connection, group, 1)
            second.start()
            await_members(connection, group, 2)
            with outcome_counter(connection, topics) as count:
                await_more(connection, topics, count() + 100)
            assert second.end(signal.SIGTERM) == 0
    await_outcomes(connection, topics, published)
    assert first.end(signal.SIGTERM) == 0
    Outcomes.read(connection, topics).check(published)


def test_references_of_an_aborted_transaction_are_never_processed(
    connection: KafkaConnection, topics: Topics, photos: list[Path], make_worker: MakeWorker
) -> None:
    committed, aborted = references(photos, 300), references(photos, 300)
    producer = Producer({**connection.librdkafka(), "transactional.id": uuid.uuid4().hex, "log_level": 0})
    producer.init_transactions(30)
    for start in range(0, 300, 50):
        for refs, end in ((aborted, producer.abort_transaction), (committed, producer.commit_transaction)):
            producer.begin_transaction()
            for ref in refs[start : start + 50]:
                producer.produce(topics.online, CODEC.encode(ref), ref.ordering_key.encode())
            producer.flush(30)
            end(30)
    worker = make_worker()
    worker.start()
    await_outcomes(connection, topics, committed)
    assert worker.end(signal.SIGTERM) == 0
    Outcomes.read(connection, topics).check(committed)


@pytest.fixture
def worker_log(tmp_path: Path) -> Iterator[Path]:
    """Where a worker of a private cluster writes; shown if the test fails."""
    log = tmp_path / "worker.log"
    yield log
    print(log.read_text())


def test_the_broker_dies_and_comes_back_under_load(
    private_kafka: LocalKafka, photos: list[Path], tmp_path: Path, worker_log: Path, chance: Random
) -> None:
    connection, topics = own_topics(private_kafka)
    refs = with_missing(references(photos, 3000), chance)
    settings = SETTINGS | {"IMAGES_ROOTS": str(tmp_path / "photos")}
    with (
        Publisher(connection, CODEC, topics) as publisher,
        worker_process(connection, topics, "group", worker_log, settings) as worker,
    ):
        publish(publisher, refs[:1500])
        worker.start()
        await_more(connection, topics, 100)
        private_kafka.kill(1)
        late = [publisher.publish(ref) for ref in refs[1500:]]  # what is published meanwhile waits in the client
        private_kafka.restart(1)
        for receipt in late:
            receipt.result(120)
        await_outcomes(connection, topics, refs, timeout_s=150)
        assert worker.end(signal.SIGTERM) == 0
    Outcomes.read(connection, topics).check(refs)


def test_each_of_three_brokers_dies_and_comes_back_under_load(
    three_brokers: LocalKafka, photos: list[Path], tmp_path: Path, worker_log: Path, chance: Random
) -> None:
    connection, topics = own_topics(three_brokers)
    refs = with_missing(references(photos, 4000), chance)
    settings = SETTINGS | {"IMAGES_ROOTS": str(tmp_path / "photos")}
    with (
        Publisher(connection, CODEC, topics) as publisher,
        worker_process(connection, topics, "group", worker_log, settings) as worker,
    ):
        publish(publisher, refs)
        worker.start()
        for node in (1, 2, 3):
            await_more(connection, topics, 500 * node)
            three_brokers.kill(node)
            await_more(connection, topics, 500 * node + 200)  # the other two carry on
            three_brokers.restart(node)
        await_outcomes(connection, topics, refs, timeout_s=150)
        assert worker.end(signal.SIGTERM) == 0
    Outcomes.read(connection, topics).check(refs)
