"""A log in memory, a real result store on SQLite that follows it, and the tail beside it: what the routes out are tested on."""

import asyncio
import json
import time
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestServer

from infra.http.problems import problems
from schemas.codec import Codec, PackagedSchemas
from schemas.control import Batch, Deletion, WorkerProgress
from schemas.errors import BusyError, Reason
from schemas.identity import OPEN, REQUEST_KEY, Principal
from schemas.records import DeadLetter, Detection, DetectionResult, ImageRef, Timings, new_image_id
from schemas.topics import Topics
from sinks.base import Extent, Partition, ResultRun
from sinks.events import failure_event, result_events
from sinks.results import ResultParts, add_routes
from sinks.results_pictures import LoadPicture, ResultPictures
from sinks.results_policy import ResultsPolicy
from sinks.results_reads import ResultReads
from sinks.results_status import ServiceStatus
from sinks.store import SqlResultStore
from sinks.store_columns import completions, loss, submissions
from sinks.store_fold import Advance, Changes
from sinks.store_policy import StorePolicy
from sinks.store_schema import migrate
from sinks.store_writes import StoreWriter
from sinks.waits import Waits
from tests.support.contract import check_answer

CODEC = Codec(PackagedSchemas())
NOW = datetime.now(UTC).replace(microsecond=0)
BOX = Detection(label="dog", class_id=16, score=0.875, x1=10.0, y1=20.0, x2=110.5, y2=120.25)


def _now_us() -> int:
    return time.time_ns() // 1000


@cache
def _empty_store() -> bytes:
    """The file of a store in which there is nothing: migrated once, which takes longer than most tests."""
    with TemporaryDirectory() as directory:
        file = Path(directory) / "store.db"
        writer = StoreWriter(StorePolicy(database_url=f"sqlite:///{file}"), _now_us)
        migrate(writer.engine)
        writer.close()
        return file.read_bytes()


def reference(image_id: str | None = None, **fields: Any) -> ImageRef:
    """A reference to an image, submitted a minute ago."""
    given = {"uri": "file:///pictures/dog.jpg", "submitted_at": NOW - timedelta(minutes=1), **fields}
    return ImageRef(id=image_id or new_image_id(), **given)


def result_of(ref: ImageRef, *boxes: Detection, **fields: Any) -> DetectionResult:
    """Its result, 250 ms later."""
    given: dict[str, Any] = {
        "model_name": "codes",
        "model_version": "1",
        "model_digest": "sha256:" + "ab" * 32,
        "image_width": 640,
        "image_height": 480,
        "completed_at": ref.submitted_at + timedelta(milliseconds=250),
        "timings": Timings(wait_ms=1.5, fetch_ms=2.25, decode_ms=8.5, inference_ms=20.125),
        **fields,
    }
    return DetectionResult(
        id=f"r-{ref.id}",
        image_id=ref.id,
        uri=ref.uri,
        tenant=ref.tenant,
        key=ref.key,
        batch_id=ref.batch_id,
        lane=ref.lane,
        submitted_at=ref.submitted_at,
        attributes=ref.attributes,
        detections=boxes,
        **given,
    )


class World:
    """Records go to the log; the store takes them at once, or when `project` is called where it is `lagging`.

    The tail tells outcomes at once, unless it is `deaf`. `asked` counts the questions for the log's ends.
    """

    def __init__(self, directory: Path, policy: ResultsPolicy | None = None, **store: Any) -> None:
        self.topics = Topics()
        self.policy = policy or ResultsPolicy()
        given = StorePolicy(database_url=f"sqlite:///{directory / 'store.db'}", **store)
        (directory / "store.db").write_bytes(_empty_store())
        self._writer = StoreWriter(given, _now_us)
        self.store = SqlResultStore(given, _now_us)
        self._changes = Changes()
        self._log: dict[Partition, int] = {}
        self._stored: dict[Partition, int] = {}
        self.waits = Waits(self.policy.waits)
        self.reads = ResultReads(self.store, self, self.waits, given.catch_up_s)
        self.lagging = self.deaf = self.log_is_away = False
        self.asked = 0

    def close(self) -> None:
        self.store.close()
        self._writer.close()

    async def ends(self) -> Mapping[Partition, int]:
        """How far the log goes."""
        self.asked += 1
        if self.log_is_away:
            raise BusyError(Reason.STORAGE_UNAVAILABLE, "the brokers do not answer")
        return dict(self._log)

    def submit(self, *refs: ImageRef) -> None:
        """All on one lane."""
        run = self._run(self.topics.lane(refs[0].lane), ImageRef, refs)
        self._changes.submissions.extend(submissions(run, [-1] * len(refs)))
        self._written()

    def take(self, count: int, topic: str | None = None) -> None:
        """A worker takes everything below this offset."""
        progress = WorkerProgress(topic=topic or self.topics.online, taken=count, at=NOW)
        self._append(self.topics.progress)
        self._changes.taken.append(progress)
        self._written()

    def complete(self, *results: DetectionResult) -> None:
        run = self._run(self.topics.detections, DetectionResult, results)
        self._changes.completions.extend(completions(run))
        if not self.deaf:
            for event in result_events(run):
                self.waits.take(event)
        self._written()

    def fail(self, ref: ImageRef, code: Reason = Reason.IMAGE_CORRUPT) -> None:
        letter = DeadLetter(
            code=code,
            message="the image ends too early",
            stage="decode",
            attempts=1,
            image_id=ref.id,
            tenant=ref.tenant,
            batch_id=ref.batch_id,
            value=CODEC.encode(ref),
            key=ref.ordering_key.encode(),
            source_topic=self.topics.lane(ref.lane),
            failed_at=ref.submitted_at + timedelta(seconds=1),
        )
        offset = self._append(self.topics.dead_letters)
        found = loss(letter, offset, lambda value: CODEC.decode(value, ImageRef), "none")
        assert found is not None
        self._changes.losses.append(found)
        if not self.deaf:
            self.waits.take(failure_event(letter, Partition(self.topics.dead_letters, 0), offset))
        self._written()

    def batch(self, batch_id: str, images: int | None, tenant: str = "default") -> None:
        self._append(self.topics.batches)
        closed_at = NOW if images is not None else None
        self._changes.batches.append(
            Batch(id=batch_id, tenant=tenant, images=images, created_at=NOW - timedelta(minutes=1), closed_at=closed_at)
        )
        self._written()

    async def forget(self, tenant: str, image_id: str) -> tuple[Partition, int]:
        """What a deletion does to the log."""
        offset = self._append(self.topics.deletions)
        self._changes.deletions.append(Deletion(image_id=image_id, tenant=tenant, deleted_at=NOW))
        self._written()
        return Partition(self.topics.deletions, 0), offset

    def project(self) -> None:
        """Let the store read what the log holds."""
        for partition in self._log.keys() - self._stored.keys():
            self._stored[partition] = self._writer.open(partition, Extent("1", 0, 0))
        steps = [Advance(place, self._stored[place], end, _now_us()) for place, end in self._log.items()]
        changes, self._changes = self._changes, Changes()
        self._writer.write(replace(changes, advances=tuple(step for step in steps if step.after > step.before)))
        self._stored = dict(self._log)

    def _run(self, topic: str, kind: type[Any], records: Sequence[Any]) -> ResultRun:
        first = self._append(topic, len(records))
        batch = CODEC.decode_run([CODEC.encode(record) for record in records], kind).batch
        offsets = np.arange(first, first + len(records))
        stamps = np.full(len(records), round(time.time() * 1000))
        return ResultRun(Partition(topic, 0), first, first + len(records), batch, offsets, stamps)

    def end(self, topic: str) -> int:
        """How many records a topic has."""
        return self._log.get(Partition(topic, 0), 0)

    def _append(self, topic: str, count: int = 1) -> int:
        offset = self.end(topic)
        self._log[Partition(topic, 0)] = offset + count
        return offset

    def _written(self) -> None:
        if not self.lagging:
            self.project()


class Caller:
    """Asks the routes as one principal."""

    def __init__(self, session: aiohttp.ClientSession, server: TestServer, principal: Principal) -> None:
        self._session, self._server, self._principal = session, server, principal

    def as_tenant(self, tenant: str, **fields: Any) -> "Caller":
        """Somebody else."""
        scopes = fields.pop("scopes", OPEN.scopes)
        return Caller(self._session, self._server, Principal(tenant=tenant, subject="k", scopes=scopes, **fields))

    async def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, Mapping[str, str]]:
        """Status, body (JSON as values) and headers."""
        known = _PRINCIPALS[id(self._principal)] = self._principal
        named = {name.replace("_", "-"): value for name, value in headers.items()} | {"X-Test": str(id(known))}
        async with self._session.request(method, self._server.make_url(path), headers=named) as answer:
            body: Any = await answer.read()
            if answer.content_type.endswith("json") and body:
                body = await answer.json(content_type=None)
            return answer.status, body, answer.headers


_PRINCIPALS: dict[int, Principal] = {}


@web.middleware
async def _identify(request: web.Request, handler: Any) -> web.StreamResponse:
    name = request.headers.get("X-Test")
    if name:
        request[REQUEST_KEY] = _PRINCIPALS[int(name)]
    response: web.StreamResponse = await handler(request)
    return response


async def no_picture(uri: str, sha256: str | None) -> Any:
    """A loader where no test loads anything."""
    raise AssertionError(f"nobody should load {uri} ({sha256})")


@asynccontextmanager
async def serving(world: World, load: LoadPicture = no_picture, forget: Any = None) -> AsyncIterator[Caller]:
    """The routes out, and somebody who asks them in open mode."""
    warnings.filterwarnings("ignore", category=web.NotAppKeyWarning)  # as `infra.http.stack.protect` does
    parts = ResultParts(
        reads=world.reads,
        pictures=ResultPictures(load, world.policy),
        status=ServiceStatus(world.store, world, world.topics, world.policy.status_s),
        forget=forget or world.forget,
        policy=world.policy,
    )
    app = web.Application(middlewares=[web.middleware(problems), _identify])
    add_routes(app, parts)
    server = TestServer(app)
    async with server, aiohttp.ClientSession() as session:
        yield Caller(session, server, OPEN)


async def asked(caller: Caller, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, Any]:
    """Ask, and check the answer against the OpenAPI document."""
    status, body, found = await caller.ask(path, method, **headers)
    raw = b"" if body == b"" else json.dumps(body).encode()
    check_answer(method, path.partition("?")[0], status, found.get("Content-Type", "").partition(";")[0], raw)
    return status, body, found


async def turn() -> None:
    """Let other tasks of the loop go on."""
    await asyncio.sleep(0.05)  # only to let a request reach its wait; nothing is concluded from it
