"""Decoders that die under a worker, on a real Kafka: each costs one image at most, and the worker goes on."""

import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from detectors.decoders import PROGRAM
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.errors import Reason
from schemas.topics import Topics
from tests.e2e.conftest import MakeWorker
from tests.support.images import png
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
    (photos[0].parent / "costly.png").write_bytes(png(4000, 4000, 1, 0, (b"\0" * (4000 // 8 + 1)) * 4000))
    refs[0] = costly = replace(refs[0], uri=(photos[0].parent / "costly.png").as_uri())
    worker = make_worker(IMAGES_DECODERS=str(DECODERS), IMAGES_DECODE_MEMORY_BYTES=str(32 * 1024**2))
    worker.start()
    publish(publisher, [costly])
    await_more(connection, topics, 0)  # before anything is killed: it must fail by its own doing
    killed = 0
    for number in range(ROUNDS):
        done = max(1, number * COUNT // ROUNDS)
        publish(publisher, refs[done : (number + 1) * COUNT // ROUNDS])
        await_more(connection, topics, done)
        for decoder in decoders(worker):
            decoder.send_signal(signal.SIGSEGV)
            killed += 1
    outcomes = await_outcomes(connection, topics, refs)
    assert killed >= ROUNDS  # of the others one may not have been replaced yet, for want of work
    assert {letter.code for letter in outcomes.letters} <= {Reason.DECODER_FAILED}
    assert len(outcomes.letters) <= killed + 1
    assert ["bytes of memory" in letter.message for letter in outcomes.letters if letter.image_id == costly.id] == [
        True
    ]
    assert outcomes.records == COUNT
    assert not outcomes.duplicates()
    assert worker.end(signal.SIGTERM) == 0
