"""How fast the result store takes in what workers produce, and how fast it answers, on SQLite and PostgreSQL. Needs no Kafka."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

from schemas.codec import Codec, PackagedSchemas
from schemas.records import Detection, DetectionResult, ImageRef
from schemas.topics import Topics
from sinks.base import Extent, Partition
from sinks.store import SqlResultStore
from sinks.store_base import ImageQuery
from sinks.store_policy import StorePolicy
from sinks.store_schema import migrate
from sinks.store_writes import StoreWriter
from streams.projected import LogReader
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Backstage
from tests.support.postgres import fresh_database, postgres_server
from tests.support.stores import START, START_US

IMAGES, RUN, BOXES, LABELS, READS = 50_000, 2_500, 3, 40, 300
_TOPICS = Topics()
_WANTED_PER_S = 1_000  # several times what a worker infers on a CPU


class Record:
    """A Kafka message, as far as the projection looks at it."""

    def __init__(self, offset: int, value: bytes) -> None:
        self._offset, self._value = offset, value

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return self._value

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, START_US // 1000


def run(stage: Backstage) -> Section:
    """The same images into each database, requests and results in turn, then questions one after the other."""
    rows, targets = [], []
    for name, url in _databases(stage.scratch):
        per_s, cpu_us = _fill(url)
        one_ms, list_ms = asyncio.run(_ask(url))
        stage.say(f"{name}: {per_s:,.0f} images/s, {cpu_us:.0f} µs, image {one_ms:.2f} ms, search {list_ms:.2f} ms")
        rows.append((name, f"{per_s:,.0f}", f"{cpu_us:.0f}", f"{one_ms:.2f}", f"{list_ms:.1f}"))
        targets.append(Target(what=f"{name}: images/s", measured=per_s, wanted=_WANTED_PER_S))
    return Section(
        name="store",
        title="Into the result store and out of it",
        how=(
            f"{IMAGES:,} images: a request and a result with {BOXES} boxes of {LABELS} labels each, in transactions of {RUN:,} records, "
            f"decoded from Avro as the projection does; no Kafka in between. Then {READS} questions of each kind, one after the other."
        ),
        columns=("database", "images/s", "CPU µs an image (without the server's)", "one image, ms", "50 by label, ms"),
        rows=rows,
        targets=targets,
    )


def _databases(scratch: Path) -> Iterator[tuple[str, str]]:
    yield "SQLite", f"sqlite:///{scratch}/store.db"
    with postgres_server(scratch / "postgres") as server, fresh_database(server) as url:
        yield "PostgreSQL", url


def _fill(url: str) -> tuple[float, float]:
    """Images a second, and µs of this process's time for each."""
    topics = (Partition(_TOPICS.online, 0), Partition(_TOPICS.detections, 0))
    reader = LogReader(Codec(PackagedSchemas()), _TOPICS)
    with closing(StoreWriter(StorePolicy(database_url=url, keep_days=0), lambda: START_US)) as writer:
        migrate(writer.engine)
        positions = {partition: writer.open(partition, Extent("t", 0, IMAGES)) for partition in topics}
        wall, cpu = 0.0, 0.0
        for first in range(0, IMAGES, RUN):
            for partition, records in zip(topics, _records(first), strict=True):
                with _timed() as took:
                    writer.write(reader.changes([(partition, records)], positions))
                positions[partition] += len(records)
                wall, cpu = wall + took[0], cpu + took[1]
    return IMAGES / wall, cpu / IMAGES * 1e6


def _records(first: int) -> tuple[list[Record], list[Record]]:
    codec = Codec(PackagedSchemas())
    refs, results = [], []
    for number in range(first, first + RUN):
        at = START + timedelta(milliseconds=number)
        ref = ImageRef(id=f"{number:032x}", uri="s3://shop/shelf.jpg", key=f"camera-{number % 100}", submitted_at=at)
        boxes = tuple(
            Detection(label=f"label-{(number * BOXES + n) % LABELS}", class_id=n, score=0.5, x1=1, y1=2, x2=3, y2=4)
            for n in range(BOXES)
        )
        result = DetectionResult(
            id=f"{number:032x}",
            image_id=ref.id,
            uri=ref.uri,
            key=ref.key,
            model_name="codes",
            detections=boxes,
            submitted_at=at,
            completed_at=at,
        )
        refs.append(Record(number, codec.encode(ref)))
        results.append(Record(number, codec.encode(result)))
    return refs, results


async def _ask(url: str) -> tuple[float, float]:
    """Medians in ms: one image by id, and the newest 50 with a label and a score."""
    with closing(SqlResultStore(StorePolicy(database_url=url, keep_days=0), lambda: START_US)) as store:
        query = ImageQuery(tenant="default", labels=("label-7",), min_score=0.4)
        one = await _median_ms(lambda at: store.image("default", f"{at * 97 % IMAGES:032x}"))
        return one, await _median_ms(lambda _: store.images(query))


async def _median_ms(ask: Callable[[int], Awaitable[object]]) -> float:
    took = []
    for at in range(READS):
        begun = time.perf_counter()
        assert await ask(at)
        took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took)


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Wall and processor seconds of the block, once it is over."""
    found: list[float] = []
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    found += [time.perf_counter() - wall, time.process_time() - cpu]
