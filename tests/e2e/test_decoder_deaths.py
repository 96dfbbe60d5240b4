"""Decoders that die under a worker, on a real Kafka: each costs one image at most, and the worker goes on."""

import signal
from pathlib import Path

import psutil
import pytest

from detectors.decoders import PROGRAM
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.errors import Reason
from schemas.topics import Topics
from tests.e2e.conftest import MakeWorker
from tests.support.pipeline import WorkerProcess, await_more, await_outcomes, publish, references

pytestmark = [pytest.mark.kafka, pytest.mark.kill]

COUNT, ROUNDS, DECODERS = 1200, 4, 2


def decoders(worker: WorkerProcess) -> list[psutil.Process]:
    """The decoder processes that live; one that died stays as a zombie until somebody needs it."""
    assert worker.process
    children = psutil.Process(worker.process.pid).children()
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE and PROGRAM in child.cmdline()]


def test_a_worker_goes_on_without_the_images_that_kill_decoders(
    connection: KafkaConnection,
    topics: Topics,
    publisher: Publisher,
    photos: list[Path],
    make_worker: MakeWorker,
) -> None:
    refs = references(photos, COUNT)
    worker = make_worker(IMAGES_DECODERS=str(DECODERS))
    worker.start()
    for number in range(ROUNDS):
        publish(publisher, refs[number * COUNT // ROUNDS : (number + 1) * COUNT // ROUNDS])
        await_more(connection, topics, number * COUNT // ROUNDS)
        for decoder in decoders(worker):
            decoder.send_signal(signal.SIGSEGV)
    outcomes = await_outcomes(connection, topics, refs)
    assert {letter.code for letter in outcomes.letters} <= {Reason.DECODER_FAILED}
    assert len(outcomes.letters) <= ROUNDS * DECODERS
    assert outcomes.records == COUNT
    assert not outcomes.duplicates()
    assert worker.end(signal.SIGTERM) == 0
