"""`kill -9` of a detection worker at every named point, on a real Kafka: nothing lost, order kept, few copies, work goes on at once."""

import signal
import time
from pathlib import Path

import pytest

from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.topics import Topics
from streams.detect import FAILPOINTS
from tests.e2e.conftest import MakeWorker
from tests.support.pipeline import Outcomes, await_more, await_outcomes, publish, references

pytestmark = [pytest.mark.kafka, pytest.mark.kill]

COUNT = 1500
COMMIT_INTERVAL_S = 0.5
SESSION_S = 60.0  # much longer than any start: a successor that waited for it would show


@pytest.mark.parametrize("point", FAILPOINTS)
def test_nothing_is_lost_when_a_worker_dies(
    point: str,
    connection: KafkaConnection,
    topics: Topics,
    publisher: Publisher,
    photos: list[Path],
    make_worker: MakeWorker,
) -> None:
    refs = references(photos, COUNT)
    publish(publisher, refs[: COUNT // 2])
    worker = make_worker(
        WORKER_INSTANCE_ID="slot-0",
        WORKER_COMMIT_INTERVAL_S=str(COMMIT_INTERVAL_S),
        WORKER_SESSION_TIMEOUT_S=str(SESSION_S),
        BATCHING_MAX_BATCH="16",
    )
    worker.start(FAILPOINT=f"{point}:{1 if 'commit' in point else 12}")
    assert worker.died() == -signal.SIGKILL, "the failpoint was not reached"
    before = Outcomes.read(connection, topics)
    publish(publisher, refs[COUNT // 2 :])

    worker.start()
    started = time.monotonic()
    await_more(connection, topics, len(before.results))
    assert time.monotonic() - started < SESSION_S, "it had to wait for the session of its predecessor"
    outcomes = await_outcomes(connection, topics, refs)
    assert worker.end(signal.SIGTERM) == 0

    outcomes = Outcomes.read(connection, topics)
    outcomes.check(refs)
    check_copies(outcomes, before)


def check_copies(outcomes: Outcomes, before: Outcomes) -> None:
    """Only what was written within a commit interval before the death may stand twice (the interval again as slack for the timer)."""
    copied = set(outcomes.duplicates())
    assert copied <= {result.id for result in before.results}
    written = {result.id: at for result, at in zip(before.results, before.written_ms, strict=True)}
    if copied:
        oldest = max(before.written_ms) - min(written[result_id] for result_id in copied)
        assert oldest <= 2 * COMMIT_INTERVAL_S * 1000, (
            f"{len(copied)} copies, the oldest written {oldest} ms before the death"
        )


def test_a_graceful_stop_finishes_what_began_and_leaves_no_copy(
    connection: KafkaConnection, topics: Topics, publisher: Publisher, photos: list[Path], make_worker: MakeWorker
) -> None:
    refs = references(photos, COUNT)
    publish(publisher, refs)
    worker = make_worker(WORKER_INSTANCE_ID="slot-0", BATCHING_MAX_BATCH="16")
    for _ in range(3):
        seen = len(Outcomes.read(connection, topics).results)
        worker.start()
        await_more(connection, topics, seen)
        assert worker.end(signal.SIGTERM) == 0
    worker.start()
    await_outcomes(connection, topics, refs)
    assert worker.end(signal.SIGTERM) == 0
    outcomes = Outcomes.read(connection, topics)
    outcomes.check(refs)
    assert outcomes.duplicates() == {}
