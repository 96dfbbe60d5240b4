"""A Kafka for benchmarks, topics full of references, and processes that race over them."""

import json
import select
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from infra.broker.local import Jvm, LocalKafka
from producers.publisher import Publisher, PublisherPolicy
from schemas import arrow
from schemas.codec import Codec, PackagedSchemas
from schemas.connection import KafkaConnection
from schemas.records import ImageRef, Lane
from schemas.topics import Topics
from tests.benchmarks.sides.task import Task
from tests.support.data import ROOT

PARTITIONS = 4
_QUIX = ROOT / ".venv-quix" / "bin" / "python"
_QUIET = {"log_level": 0}
_START_S = 60.0
_RUN_S = 180.0


@contextmanager
def benchmark_kafka(directory: Path) -> Iterator[KafkaConnection]:
    """A one-node Apache Kafka for this run alone; its data goes with it."""
    kafka = LocalKafka(directory, nodes=1, jvm=Jvm(heap_mb=768))
    try:
        kafka.start()
        yield KafkaConnection(bootstrap=kafka.bootstrap)
    finally:
        kafka.stop(grace_s=5)
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One side's run. `records` were processed between the first in hand and the last on the log (the broker's clock), in `seconds`."""

    records: int
    seconds: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Records a second."""
        return self.records / self.seconds

    @property
    def cpu_us(self) -> float:
        """Processor time a record, all threads."""
        return self.cpu_s / self.records * 1e6


class Course:
    """Topics full of references, which every side reads from the start, and one topic of results, where the broker stamps the times."""

    def __init__(self, connection: KafkaConnection) -> None:
        self.topics = Topics(f"bench-{uuid.uuid4().hex[:6]}.")
        self._connection = connection
        self._watcher = Consumer({**connection.librdkafka(), **_QUIET, "group.id": f"{self.topics.prefix}watch"})
        stamped = {"message.timestamp.type": "LogAppendTime"}
        admin = AdminClient({**connection.librdkafka(), **_QUIET})
        wanted = [
            NewTopic(t.name, t.partitions, config=stamped if t.name == self.topics.detections else {})
            for t in self.topics.catalogue(PARTITIONS)
        ]
        for future in admin.create_topics(wanted, operation_timeout=30).values():
            future.result(30)

    def fill(self, lane: Lane, uris: Sequence[str], keys: int = 400) -> None:
        """Publish one reference a URI, as producers do."""
        codec = Codec(PackagedSchemas())
        failures: list[Any] = []
        with Publisher(self._connection, codec, self.topics) as publisher:
            for start in range(0, len(uris), 1000):
                batch = _references(uris[start : start + 1000], start, keys, lane)
                names = [key.encode() for key in batch.column("key").to_pylist()]
                values = codec.encode_run(batch, ImageRef)
                publisher.send_run(
                    self.topics.lane(lane), names, values, lambda error, _: failures.append(error) if error else None
                )
            publisher.flush(60)
        if failures:
            raise RuntimeError(f"references were not confirmed: {failures[0]}")

    def task(self, side: str, lane: Lane = Lane.ONLINE, **worker: Any) -> Task:
        """A task for one run: the producer is set as the project's own is by default, and the group is new."""
        policy = PublisherPolicy()
        producer = {
            **self._connection.librdkafka(),
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "compression.type": policy.compression,
            "linger.ms": policy.linger_ms,
            "queue.buffering.max.messages": 100_000,
        }
        return Task(
            bootstrap=self._connection.bootstrap,
            source=self.topics.lane(lane),
            sink=self.topics.detections,
            group=f"{side}-{uuid.uuid4().hex[:8]}",
            producer=producer,
            worker={"prefix": self.topics.prefix, **worker},
        )

    def ends(self) -> list[int]:
        """The next offset of each partition of the results."""
        return [
            self._watcher.get_watermark_offsets(TopicPartition(self.topics.detections, partition), timeout=10)[1]
            for partition in range(PARTITIONS)
        ]

    def race(self, side: str, task: Task, records: int) -> Outcome:
        """Run a side until it wrote so many results; raises if it does not, or writes one too many."""
        before = self.ends()
        with side_process(side, task) as process:
            first = first_record(process)
            self.wait_for(sum(before) + records, process)
            cpu = psutil.Process(process.pid).cpu_times()
            spent_s = cpu.user + cpu.system - first["cpu_s"]
            process.terminate()
            if process.wait(30) != 0:
                raise RuntimeError(f"{side} ended with {process.returncode}")
        after = self.ends()
        if sum(after) - sum(before) != records:
            raise RuntimeError(f"{side} wrote {sum(after) - sum(before)} results for {records} references")
        self._check_committed(side, task, records)
        return Outcome(records, self._last_append_s(after) - first["at"], spent_s)

    def wait_for(self, total: int, process: "subprocess.Popen[bytes]") -> None:
        """Wait until the topic of results holds so many."""
        deadline = time.monotonic() + _RUN_S
        while (done := sum(self.ends())) < total:
            if process.poll() is not None:
                raise RuntimeError(f"it ended with {process.returncode}, {total - done} results early")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{total - done} results are missing after {_RUN_S:.0f} s")
            time.sleep(0.1)

    def _check_committed(self, side: str, task: Task, records: int) -> None:
        """What it wrote it must have committed: nobody is faster for leaving that out."""
        reader = Consumer({**self._connection.librdkafka(), "group.id": task.group})
        offsets = reader.committed([TopicPartition(task.source, p) for p in range(PARTITIONS)], timeout=10)
        reader.close()
        if sum(max(0, tp.offset) for tp in offsets) != records:
            raise RuntimeError(f"{side} committed {[tp.offset for tp in offsets]} of {records} references")

    def _last_append_s(self, ends: Sequence[int]) -> float:
        """When the broker appended the last result."""
        watcher, topic = self._watcher, self.topics.detections
        lasts = [TopicPartition(topic, p, end - 1) for p, end in enumerate(ends) if end]
        watcher.assign(lasts)
        stamps: dict[int, int] = {}
        deadline = time.monotonic() + 30
        while len(stamps) < len(lasts) and time.monotonic() < deadline:
            for message in watcher.consume(len(lasts), 0.5):
                stamps[message.partition()] = message.timestamp()[1]
        watcher.unassign()
        return max(stamps.values()) / 1000


def in_turn(sides: Iterable[str], number: int) -> list[str]:
    """The sides in the order of a round: every other one backwards, so that a machine that gets quieter favours none."""
    return list(sides)[:: 1 - number % 2 * 2]


@contextmanager
def side_process(side: str, task: Task) -> Iterator["subprocess.Popen[bytes]"]:
    """A side as a process; killed at the end if it still runs."""
    python = str(_QUIX) if side == "quix" else sys.executable
    command = [python, "-m", f"tests.benchmarks.sides.{side}", task.text()]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def first_record(process: "subprocess.Popen[bytes]") -> dict[str, float]:
    """Wait for what the side says at its first record."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], _START_S)[0] or not (line := process.stdout.readline()):
        raise RuntimeError(f"no record within {_START_S:.0f} s; exit code {process.poll()}")
    said: dict[str, float] = json.loads(line)
    return said


def _references(uris: Sequence[str], start: int, keys: int, lane: Lane) -> pa.RecordBatch:
    """References as columns; what is not said is as in an `ImageRef` of a few fields."""
    now = datetime.now(UTC).replace(tzinfo=None)
    one = ImageRef(id="", uri="", lane=lane)
    given = {
        "id": [f"{at:032x}" for at in range(start, start + len(uris))],
        "uri": uris,
        "key": [f"camera-{at % keys:04d}" for at in range(start, start + len(uris))],
    }
    constant: dict[str, Any] = {
        "tenant": one.tenant,
        "lane": one.lane.value,
        "submitted_at": now,
        "parameters": {},
        "attributes": [],
    }
    columns = [
        pa.array(given[field.name], field.type)
        if field.name in given
        else pa.repeat(pa.scalar(constant.get(field.name), field.type), len(uris))
        for field in arrow.IMAGE_REF
    ]
    return pa.RecordBatch.from_arrays(columns, schema=arrow.IMAGE_REF)
