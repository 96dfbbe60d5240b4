"""`kill -9` of a detection worker at every named point, on a real Kafka: nothing lost, order kept, few copies, work goes on at once."""

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import Consumer, TopicPartition

from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.topics import Topics
from streams.detect import FAILPOINTS
from tests.e2e.conftest import MakeWorker
from tests.support.pipeline import Outcomes, await_more, await_outcomes, publish, references, with_missing

pytestmark = [pytest.mark.kafka, pytest.mark.kill]

COUNT = 1500
BATCH = 16
MOST_BATCHES = COUNT // 2 // BATCH  # before the death: so many are sure to be made of what was published first
COMMIT_INTERVAL_S = 0.5
SLACK_S = 10.0  # a slow machine's timers are late, and its commits slow
SESSION_S = 60.0  # much longer than any start: a successor that waited for it would show


@pytest.mark.parametrize("point", FAILPOINTS)
def test_nothing_is_lost_when_a_worker_dies(  # noqa: PLR0917 - fixtures
    point: str,
    connection: KafkaConnection,
    topics: Topics,
    publisher: Publisher,
    photos: list[Path],
    make_worker: MakeWorker,
    group: str,
    chance: Random,
) -> None:
    refs = with_missing(references(photos, COUNT), chance)
    publish(publisher, refs[: COUNT // 2])
    worker = make_worker(
        KAFKA_INSTANCE_ID="slot-0",
        WORKER_COMMIT_INTERVAL_S=str(COMMIT_INTERVAL_S),
        WORKER_SESSION_TIMEOUT_S=str(SESSION_S),
        BATCHING_MAX_BATCH=str(BATCH),
    )
    worker.start(FAILPOINT=f"{point}:{1 if 'commit' in point else chance.randint(1, MOST_BATCHES)}")
    assert worker.died() == -signal.SIGKILL, "the failpoint was not reached"
    before, safe = Outcomes.read(connection, topics), committed(connection, topics, group)
    publish(publisher, refs[COUNT // 2 :])

    worker.start()
    started = time.monotonic()
    await_more(connection, topics, before.records)
    assert time.monotonic() - started < SESSION_S, "it had to wait for the session of its predecessor"
    outcomes = await_outcomes(connection, topics, refs)
    assert worker.end(signal.SIGTERM) == 0

    outcomes = Outcomes.read(connection, topics)
    outcomes.check(refs, killed=True)
    check_copies(outcomes, before, safe)


def committed(connection: KafkaConnection, topics: Topics, group: str) -> dict[int, int]:
    """Partition of the online lane -> next offset that the group would read."""
    consumer = Consumer({**connection.librdkafka(), "group.id": group, "log_level": 0})
    try:
        places = consumer.committed([TopicPartition(topics.online, index) for index in range(4)], timeout=60)
        return {place.partition: max(place.offset, 0) for place in places}
    finally:
        consumer.close()


def check_copies(outcomes: Outcomes, before: Outcomes, safe: Mapping[int, int]) -> None:
    """Only what had been written and was not committed yet may stand twice: nothing older than a commit interval, some slack aside."""
    copied = set(outcomes.duplicates())
    assert not before.duplicates()
    assert copied <= set(before.written_ms)
    places = {one.id: (one.source_partition, one.source_offset) for one in outcomes.results}
    places |= {one.image_id: (one.source_partition, one.source_offset) for one in outcomes.letters}
    assert all(offset >= safe[partition] for partition, offset in map(places.__getitem__, copied))
    if copied:
        oldest = max(before.written_ms.values()) - min(before.written_ms[name] for name in copied)
        assert oldest <= (COMMIT_INTERVAL_S + SLACK_S) * 1000, (
            f"{len(copied)} copies, the oldest written {oldest} ms before the death"
        )


def test_a_graceful_stop_finishes_what_began_and_leaves_no_copy(
    connection: KafkaConnection,
    topics: Topics,
    publisher: Publisher,
    photos: list[Path],
    make_worker: MakeWorker,
    chance: Random,
) -> None:
    refs = with_missing(references(photos, COUNT), chance)
    publish(publisher, refs)
    worker = make_worker(KAFKA_INSTANCE_ID="slot-0", BATCHING_MAX_BATCH=str(BATCH))
    for _ in range(3):
        seen = Outcomes.read(connection, topics).records
        worker.start()
        await_more(connection, topics, seen)
        assert worker.end(signal.SIGTERM) == 0
    worker.start()
    await_outcomes(connection, topics, refs)
    assert worker.end(signal.SIGTERM) == 0
    Outcomes.read(connection, topics).check(refs)
