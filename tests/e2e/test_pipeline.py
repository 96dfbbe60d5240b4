"""Everything at once on a real Kafka: publisher, two workers, Parquet sinks; each is killed, and so is the broker."""

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from confluent_kafka import Message

from infra.broker.local import LocalKafka
from infra.commands.parquet import command
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.records import ImageRef
from schemas.topics import Topics
from sinks.base import Partition
from sinks.parquet import FAILPOINTS as SINK_POINTS
from streams.detect import FAILPOINTS as WORKER_POINTS
from tests.support.deliveries import eventually, sink_process
from tests.support.kafka import read_topic
from tests.support.load import await_members, own_topics, steady_load
from tests.support.pipeline import (
    CODEC,
    Outcomes,
    WorkerProcess,
    await_more,
    await_outcomes,
    outcome_counter,
    worker_process,
)
from tests.support.results import check_lake, tip

pytestmark = [pytest.mark.kafka, pytest.mark.kill]

GROUP = "pipeline"
SINK = {"KAFKA_GROUP": GROUP, "PARQUET_MAX_ROWS": "30", "PARQUET_MAX_AGE_S": "0.2", "LOG_LEVEL": "warning"}


@dataclass(frozen=True)
class Scene:
    """Topics on a cluster that may be killed, two worker slots, a lake."""

    kafka: LocalKafka
    connection: KafkaConnection
    topics: Topics
    workers: tuple[WorkerProcess, WorkerProcess]
    lake: Path
    log: Path
    chance: Random

    def sink(self, **more: str) -> AbstractContextManager["subprocess.Popen[bytes]"]:
        """A sink as a process."""
        return sink_process(self.connection, self.topics, self.lake, SINK | more, self.log)

    def files(self) -> list[Path]:
        """What the lake holds."""
        return list(self.lake.glob("date=*/*.parquet"))

    def nth(self, point: str, most: int) -> str:
        """A failpoint that is reached soon. Of commits one may be all there is."""
        return f"{point}:{1 if 'commit' in point else self.chance.randint(1, most)}"

    def await_work(self) -> None:
        """Wait until outcomes are written that were not there."""
        with outcome_counter(self.connection, self.topics) as count:
            now = count()
        await_more(self.connection, self.topics, now + 100)

    def kill_a_worker(self) -> None:
        """Start both, let chance kill one, and start it again."""
        steady, victim = self.workers
        steady.start()
        victim.start(FAILPOINT=self.nth(self.chance.choice(WORKER_POINTS), 20))
        assert victim.died() == -signal.SIGKILL, "the failpoint was not reached"
        victim.start()
        self.await_work()

    def kill_the_broker(self) -> None:
        """What is published meanwhile waits in the client."""
        self.kafka.kill()
        self.kafka.restart(1)
        self.await_work()

    def settled(self, messages: list[Message]) -> bool:
        """Whether the lake has everything."""
        ends = Counter[int]()
        for message in messages:
            ends[message.partition()] = max(ends[message.partition()], message.offset() + 1)
        return all(tip(self.lake, Partition(self.topics.detections, index)) == end for index, end in ends.items())


@pytest.fixture
def scene(private_kafka: LocalKafka, photos: list[Path], tmp_path: Path, chance: Random) -> Iterator[Scene]:
    # No static membership: a broker that was killed may know an instance id's former member only, and fence the present one, which then
    # ends to be started again; that takes a supervisor.
    connection, topics = own_topics(private_kafka)
    log, settings = tmp_path / "processes.log", {"IMAGES_ROOTS": str(photos[0].parent), "BATCHING_MAX_BATCH": "8"}
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(worker_process(connection, topics, GROUP, log, settings)) for _ in range(2)
        )
        yield Scene(private_kafka, connection, topics, (first, second), tmp_path / "lake", log, chance)
    print(log.read_text() if log.exists() else "nothing was started")


@contextmanager
def sinks(scene: Scene) -> Iterator[None]:
    """One sink that chance kills, started again; from then on it works until the block ends, and is stopped when the lake has all."""
    point = scene.nth(scene.chance.choice(SINK_POINTS), 4)
    with scene.sink(FAILPOINT=point) as victim:
        assert victim.wait(90) == -signal.SIGKILL, "the failpoint was not reached"
    files = scene.files()
    with scene.sink() as successor:
        eventually(lambda: len(scene.files()) > len(files), "the successor writes", 90, pause_s=0.2)
        yield
        messages = read_topic(scene.connection, scene.topics.detections)
        eventually(lambda: scene.settled(messages), "the lake has everything", 120, pause_s=0.2)
        successor.send_signal(signal.SIGTERM)
        assert successor.wait(60) == 0


def join_and_leave(scene: Scene) -> None:
    """A second sink gets its share, and gives it back."""
    with scene.sink() as second:
        await_members(scene.connection, f"{GROUP}.parquet", 2)
        scene.await_work()
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 0


@pytest.mark.timeout(600)
def test_everything_dies_once_and_every_image_has_one_outcome_and_one_row(scene: Scene, photos: list[Path]) -> None:
    with Publisher(scene.connection, CODEC, scene.topics) as publisher, ExitStack() as stack:
        with steady_load(publisher, photos, scene.chance, pause_s=0.05) as published:
            scene.kill_a_worker()
            stack.enter_context(sinks(scene))
            scene.kill_the_broker()
            join_and_leave(scene)
        await_outcomes(scene.connection, scene.topics, published, timeout_s=180)
        for worker in scene.workers:
            assert worker.end(signal.SIGTERM) == 0
    check(scene, published)


def check(scene: Scene, published: list[ImageRef]) -> None:
    """Outcomes on the topics, rows in the lake."""
    outcomes = Outcomes.read(scene.connection, scene.topics)
    outcomes.check(published, killed=True)
    assert outcomes.letters, "no image was missing: the load is too small"
    rows = Counter(image_id for path in scene.files() for image_id in image_ids(path))
    assert rows == Counter({result.image_id for result in outcomes.results}), "not one row for each result"
    check_lake(scene.lake, read_topic(scene.connection, scene.topics.detections))
    verified = CliRunner().invoke(command, ["verify", str(scene.lake)])
    assert verified.exit_code == 0, verified.output


def image_ids(path: Path) -> list[str]:
    """Of every row of a file."""
    ids: list[str] = pq.ParquetFile(path).read(columns=["image_id"]).column(0).to_pylist()
    return ids
