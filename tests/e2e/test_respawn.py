"""A supervised worker on a real Kafka: killed again and again, it is back without a hand, and nothing is lost."""

import signal
from pathlib import Path
from random import Random

import pytest

from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.topics import Topics
from tests.e2e.conftest import MakeWorker
from tests.support.pipeline import Outcomes, await_more, await_outcomes, publish, references, with_missing

pytestmark = [pytest.mark.kafka, pytest.mark.kill]

COUNT, KILLS = 1500, 3
SESSION_S = 60.0  # much longer than any start: a successor that waited for it would not be back in time


def test_a_supervised_worker_is_back_after_each_death_and_ends_when_asked_to(
    connection: KafkaConnection,
    topics: Topics,
    publisher: Publisher,
    photos: list[Path],
    make_worker: MakeWorker,
    chance: Random,
) -> None:
    refs = with_missing(references(photos, COUNT), chance)
    worker = make_worker(KAFKA_INSTANCE_ID="slot-0", WORKER_SESSION_TIMEOUT_S=str(SESSION_S), BATCHING_MAX_BATCH="8")
    worker.respawn = True
    worker.start()
    share = COUNT // (KILLS + 1)
    for death in range(KILLS):
        seen = Outcomes.read(connection, topics).records
        publish(publisher, refs[death * share : (death + 1) * share])
        await_more(connection, topics, seen)
        worker.kill_the_respawned()
    publish(publisher, refs[KILLS * share :])
    await_outcomes(connection, topics, refs)
    assert worker.end(signal.SIGTERM) == 0
    Outcomes.read(connection, topics).check(refs, killed=True)
