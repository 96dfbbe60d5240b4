"""How soon a killed worker's successor works: respawned by its supervisor, started anew with a stable `kafka.instance_id`, and without."""

import signal
import statistics
import threading
import time
import uuid
from pathlib import Path

from producers.publisher import Publisher
from schemas.topics import Topics
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Stage
from tests.support.kafka import create_topics, delete_topics
from tests.support.pipeline import (
    CODEC,
    WorkerProcess,
    await_more,
    outcome_counter,
    pictures,
    publish,
    references,
    worker_process,
)

ROUNDS, RECORDS = 3, 20_000
SETTINGS = {"BATCHING_MAX_BATCH": "8", "BATCHING_MAX_WAITING": "200"}
RESPAWN, WITH, WITHOUT = (
    "worker --respawn, with kafka.instance_id",
    "started anew, with kafka.instance_id",
    "started anew, without",
)
SIDES = (RESPAWN, WITH, WITHOUT)


def run(stage: Stage) -> Section:
    """Kill a worker in mid-work and start another at once, sides in turn."""
    photos = pictures(stage.scratch / "photos")
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(ROUNDS):
        for side in SIDES[number % 3 :] + SIDES[: number % 3]:
            seconds[side].append(_takeover(stage, photos, side))
            stage.say(f"{side}: {seconds[side][-1]:.1f} s")
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    return Section(
        name="takeover",
        title="Work after kill -9 of a worker",
        how=(
            "A worker is killed while references wait, and its successor started at once: seconds from the kill or that start to the "
            f"successor's first result, start-up of the process included. {ROUNDS} rounds, sides in turn; session timeout 10 s."
        ),
        columns=("", "rounds", "median"),
        rows=[
            (side, " / ".join(f"{value:.1f}" for value in values), f"{medians[side]:.1f} s")
            for side, values in seconds.items()
        ],
        targets=(
            Target(what="seconds with --respawn", measured=medians[RESPAWN], wanted=3, at_least=False),
            Target(what="seconds started anew, with an instance id", measured=medians[WITH], wanted=3, at_least=False),
        ),
        figures=seconds,
    )


def _takeover(stage: Stage, photos: list[Path], side: str) -> float:
    topics = Topics(f"takeover{uuid.uuid4().hex[:8]}.")
    create_topics(stage.connection, topics)
    settings = SETTINGS | {"IMAGES_ROOTS": str(photos[0].parent)}
    settings |= {} if side == WITHOUT else {"KAFKA_INSTANCE_ID": "slot-0"}
    log = stage.scratch / "takeover.log"
    with (
        Publisher(stage.connection, CODEC, topics) as publisher,
        worker_process(stage.connection, topics, f"{topics.prefix}group", log, settings) as worker,
    ):
        worker.respawn = side == RESPAWN
        publish(publisher, references(photos, RECORDS))
        worker.start()
        await_more(stage.connection, topics, 500)
        started = _replace(worker)
        with outcome_counter(stage.connection, topics) as count:
            before = count()
            while count() <= before:
                if not worker.running:
                    raise RuntimeError(f"the successor ended: {log.read_text()[-2000:]}")
                threading.Event().wait(0.02)
            seconds = time.monotonic() - started
    delete_topics(stage.connection, [topic.name for topic in topics.catalogue()])
    return seconds


def _replace(worker: WorkerProcess) -> float:
    """Kill the worker; when its successor began to start. Returns once what the dead one had handed over has arrived."""
    if worker.respawn:
        worker.kill_the_respawned()
        started = time.monotonic()
        threading.Event().wait(0.2)
        return started
    worker.end(signal.SIGKILL)
    threading.Event().wait(0.5)
    started = time.monotonic()
    worker.start()
    return started
