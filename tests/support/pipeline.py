"""Detection workers as processes, references for them, and the checker of what came out."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

from producers.publisher import Publisher
from schemas.codec import Codec, PackagedSchemas
from schemas.connection import KafkaConnection
from schemas.errors import Reason
from schemas.records import DeadLetter, DetectionResult, ImageRef, Lane, new_image_id
from schemas.topics import Topics
from tests.support.data import ROOT
from tests.support.deliveries import eventually
from tests.support.images import encode, photograph
from tests.support.kafka import read_topic

CODEC = Codec(PackagedSchemas())
_MISSING = ".missing"


@dataclass(slots=True)
class WorkerProcess:
    """`sightstream worker` as a process with the fake detector; with `respawn` there is a supervisor, and workers under it."""

    connection: KafkaConnection
    topics: Topics
    group: str
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    respawn: bool = False
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, **settings: str) -> None:
        """Start it; returns at once."""
        given = {
            "KAFKA_BOOTSTRAP": self.connection.bootstrap,
            "KAFKA_PREFIX": self.topics.prefix,
            **{f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in self.connection.security.items()},
            "KAFKA_GROUP": self.group,
            "MODEL_PATH": "fake",
            "LOG_FORMAT": "json",
            **self.settings,
            **settings,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTSTREAM_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.cli", "worker", "--port", "0", *(["--respawn"] if self.respawn else [])],
                cwd=ROOT,
                env=inherited | {f"SIGHTSTREAM_{name}": value for name, value in given.items()},
                stdout=log,
                stderr=log,
            )

    def kill_the_respawned(self) -> None:
        """Kill the worker under the supervisor, which goes on."""
        assert self.process is not None
        (worker,) = psutil.Process(self.process.pid).children()
        worker.kill()

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def end(self, number: signal.Signals, timeout_s: float = 40.0) -> int:
        """Signal it and wait for its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def died(self, timeout_s: float = 60.0) -> int:
        """Wait until it ends by itself."""
        assert self.process is not None
        return self.process.wait(timeout_s)


@contextmanager
def worker_process(
    connection: KafkaConnection, topics: Topics, group: str, log: Path, settings: Mapping[str, str]
) -> Iterator[WorkerProcess]:
    """A worker that is started by the test, and killed at the end if it still runs."""
    worker = WorkerProcess(connection, topics, group, log, settings)
    try:
        yield worker
    finally:
        if worker.running:
            worker.end(signal.SIGKILL)


def pictures(directory: Path, count: int = 8) -> list[Path]:
    """Small photographs made on the spot."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"picture-{seed}.jpg" for seed in range(count)]
    for seed, path in enumerate(paths):
        path.write_bytes(encode(photograph(seed), "JPEG"))
    return paths


def references(paths: Sequence[Path], count: int, keys: int = 16, lane: Lane = Lane.ONLINE) -> list[ImageRef]:
    """References to the pictures in turn, spread over `keys` ordering keys."""
    return [
        ImageRef(id=new_image_id(), uri=paths[at % len(paths)].as_uri(), key=f"camera-{at % keys}", lane=lane)
        for at in range(count)
    ]


def with_missing(refs: Sequence[ImageRef], chance: Random, share: float = 0.02) -> list[ImageRef]:
    """The same references, but that some ask for a file that is not there: each will be a dead letter among its key's results."""
    return [replace(ref, uri=f"{ref.uri}{_MISSING}") if chance.random() < share else ref for ref in refs]


def is_missing(ref: ImageRef) -> bool:
    """Whether the reference asks for a file that is not there."""
    return ref.uri.endswith(_MISSING)


def publish(publisher: Publisher, refs: Sequence[ImageRef]) -> None:
    """Publish them in order; returns when Kafka confirmed every one."""
    for receipt in [publisher.publish(ref) for ref in refs]:
        receipt.result(60)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What stands on `detections` and `dead-letters`, in the order of each partition.

    `written_ms`: when the newest copy of an outcome was written, by result id, or image id of a dead letter.
    """

    results: Sequence[DetectionResult]
    letters: Sequence[DeadLetter]
    written_ms: Mapping[str, int]

    @classmethod
    def read(cls, connection: KafkaConnection, topics: Topics) -> "Outcomes":
        """Everything there is now."""
        found = read_topic(connection, topics.detections), read_topic(connection, topics.dead_letters)
        results = [CODEC.decode(message.value(), DetectionResult) for message in found[0]]
        letters = [CODEC.decode(message.value(), DeadLetter) for message in found[1]]
        names = [*(result.id for result in results), *(letter.image_id for letter in letters)]
        stamps = [message.timestamp()[1] for message in (*found[0], *found[1])]
        return cls(results, letters, dict(zip(names, stamps, strict=True)))

    @property
    def records(self) -> int:
        """How many there are, copies included."""
        return len(self.results) + len(self.letters)

    def missing(self, refs: Sequence[ImageRef]) -> set[str]:
        """Ids that have neither result nor dead letter."""
        return (
            {ref.id for ref in refs} - {r.image_id for r in self.results} - {letter.image_id for letter in self.letters}
        )

    def duplicates(self) -> Counter[str]:
        """Result id, or image id of a dead letter -> how many copies too many."""
        copies = Counter([*(result.id for result in self.results), *(letter.image_id for letter in self.letters)])
        return Counter({name: count - 1 for name, count in copies.items() if count > 1})

    def check(self, refs: Sequence[ImageRef], *, killed: bool = False) -> None:
        """Nothing lost, nothing invented, order per key kept, and for each image one outcome, once: a dead letter where its file is
        missing, else a result.

        `killed`: a worker died of SIGKILL, so its successor read some records again. Then an outcome may stand there more than once,
        but only as a copy: a result with the same id, a dead letter of the same record with the same code. Readers leave such out:
        the Parquet sink and the notifier by result id, whoever works through the dead letters by image id.
        """
        assert self.missing(refs) == set()
        results = [(result.image_id, result.id) for result in self.results]
        letters = [(one.image_id, one.code, one.source_topic, one.source_offset) for one in self.letters]
        found = Counter([image_id for image_id, *_ in {*results, *letters}])
        assert set(found) <= {ref.id for ref in refs}, "an outcome that nobody asked for"
        assert found.most_common(1)[0][1] == 1, f"different outcomes for one image: {found.most_common(3)}"
        assert {letter.image_id for letter in self.letters} == {ref.id for ref in refs if is_missing(ref)}
        assert {letter.code for letter in self.letters} <= {Reason.IMAGE_NOT_FOUND}
        assert killed or not self.duplicates(), f"copies, and nobody was killed: {self.duplicates().most_common(3)}"
        self._check_order(refs)

    def _check_order(self, refs: Sequence[ImageRef]) -> None:
        place = {ref.id: (at, ref.ordering_key) for at, ref in enumerate(refs)}
        order: dict[str, list[int]] = defaultdict(list)
        for image_id in dict.fromkeys(result.image_id for result in self.results):  # the first of each
            at, key = place[image_id]
            order[key].append(at)
        for key, places in order.items():
            assert places == sorted(places), f"order of {key} is broken"


@contextmanager
def outcome_counter(connection: KafkaConnection, topics: Topics) -> Iterator[Callable[[], int]]:
    """A cheap question: how many results and dead letters, copies included, are there by now?"""
    consumer = Consumer({**connection.librdkafka(), "group.id": "nobody", "log_level": 0})
    names = (topics.detections, topics.dead_letters)
    places = [
        TopicPartition(name, partition)
        for name in names
        for partition in consumer.list_topics(name, timeout=30).topics[name].partitions
    ]

    def count() -> int:
        try:
            marks = [consumer.get_watermark_offsets(place, timeout=30) for place in places]
        except KafkaException:  # a broker is down: asked again soon
            return 0
        return sum(high - low for low, high in marks)

    try:
        yield count
    finally:
        consumer.close()


def await_more(connection: KafkaConnection, topics: Topics, than: int, timeout_s: float = 90.0) -> None:
    """Wait until there are more than so many outcomes."""
    with outcome_counter(connection, topics) as count:
        eventually(lambda: count() > than, f"more than {than} outcomes", timeout_s, pause_s=0.1)


def await_outcomes(
    connection: KafkaConnection, topics: Topics, refs: Sequence[ImageRef], timeout_s: float = 90.0
) -> Outcomes:
    """Wait until every reference has an outcome, then read everything."""
    held = Outcomes((), (), {})
    with outcome_counter(connection, topics) as count:

        def complete() -> bool:
            nonlocal held
            if count() < len(refs):
                return False
            held = Outcomes.read(connection, topics)
            return not held.missing(refs)

        try:
            eventually(complete, "an outcome for every image", timeout_s, pause_s=0.2)
        except AssertionError:
            missing = Outcomes.read(connection, topics).missing(refs)
            raise AssertionError(
                f"{len(missing)} of {len(refs)} images have no outcome: {sorted(missing)[:3]}"
            ) from None
    return held


def metrics(port: int) -> str:
    """What a process says at `/metrics`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())
