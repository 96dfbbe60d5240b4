"""A gateway in memory that keeps to the contract, for tests of its clients: it answers, fails and goes away as it is told."""

import asyncio
import base64
import hashlib
import json
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web
from aiohttp.test_utils import TestServer

from schemas.problems import CONTENT_TYPE, ProblemError, not_found
from tests.support.contract import check_answer
from tests.support.images import encode, photograph

SUBMITTED = "2026-11-22T12:00:00.000Z"
COMPLETED = "2026-11-22T12:00:00.250Z"
SUBMITTED_MS = 1_795_348_800_000
MODEL = {"name": "codes", "version": "1", "digest": "ab" * 32}
BOX = {"label": "qr", "class_id": 0, "score": 0.9, "box": [1.0, 2.0, 30.5, 40.5]}
TIMINGS = {"wait_ms": 1.0, "fetch_ms": 2.0, "decode_ms": 3.0, "inference_ms": 4.0}
FAILURE = {"code": "image_corrupt", "message": "the image ends too early", "stage": "decode", "attempts": 1}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Seen:
    """A request, as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    fields: dict[str, Any] = field(default_factory=dict)
    files: list[bytes] = field(default_factory=list)


_SEEN: web.RequestKey[Seen] = web.RequestKey("seen", Seen)


class FakeGateway:
    """`hitches`: what the next requests meet instead of an answer, None for the answer itself: a ProblemError, or a dropped connection.

    `outcome` decides what becomes of an image when it is submitted: `completed`, `failed`, or None for nothing until `finish`.
    `streams`: whether there is a websocket.
    """

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Any]] = {}
        self.batches: dict[str, list[str]] = {}
        self.answered: dict[str, Any] = {}
        self.seen: list[Seen] = []
        self.hitches: deque[ProblemError | type[ConnectionError] | None] = deque()
        self.outcome: str | None = "completed"
        self.streams = True
        self.violations: list[str] = []
        self.url = ""
        self._changed = asyncio.Condition()
        self._sockets: dict[web.WebSocketResponse, dict[str, Any]] = {}
        self._told = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeGateway"]:
        """Serve while the block runs. Raises AssertionError at its end where an answer was not according to the contract."""
        app = web.Application(middlewares=[self._judge, self._hitch], client_max_size=1 << 26)
        app.add_routes(
            [
                web.post("/v1/images", self._submit),
                web.get("/v1/images", self._list),
                web.get("/v1/images/{id}", self._image),
                web.delete("/v1/images/{id}", self._delete),
                web.get("/v1/images/{id}/annotated", self._annotated),
                web.post("/v1/uploads", self._upload),
                web.put("/v1/uploads/{token}", self._put),
                web.get("/v1/batches/{id}", self._batch),
                web.get("/v1/status", self._status),
                web.get("/v1/stream", self._stream),
            ]
        )
        server = TestServer(app)
        await server.start_server()
        self.url = str(server.make_url("")).rstrip("/")
        try:
            yield self
        finally:
            await self.hang_up()
            await server.close()
        assert not self.violations, self.violations

    async def finish(self, *ids: str, how: str = "completed") -> None:
        """Images get their outcome: waiting requests are answered, and subscribers told."""
        for image_id in ids:
            image = self.images[image_id]
            image |= {"status": how, "completed_at": COMPLETED}
            if how == "completed":
                image |= {"model": MODEL, "width": 64, "height": 48, "detections": [BOX], "result_id": f"r-{image_id}"}
                image |= {"timings": {**TIMINGS, "total_ms": 250.0}}
            else:
                image |= {"failure": FAILURE}
            for socket, wanted in list(self._sockets.items()):
                if image_id in wanted.get("image", [image_id]) and image["batch_id"] in wanted.get(
                    "batch", [image["batch_id"]]
                ):
                    await socket.send_json([self._message(image)])
        async with self._changed:
            self._changed.notify_all()

    async def hang_up(self) -> None:
        """End every stream, as a restart does."""
        for socket in list(self._sockets):
            await socket.close(code=1012)

    @property
    def subscribers(self) -> int:
        """How many streams are subscribed."""
        return len(self._sockets)

    def count(self, method: str, path: str) -> int:
        """How many such requests came."""
        return sum((one.method, one.path) == (method, path) for one in self.seen)

    @web.middleware
    async def _judge(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        if isinstance(answer, web.Response):
            body = answer.body if isinstance(answer.body, bytes) else b""
            try:
                check_answer(request.method, request.path, answer.status, answer.content_type, body)
            except AssertionError as error:
                self.violations.append(str(error))
        return answer

    @web.middleware
    async def _hitch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        seen = Seen(request.method, request.path, dict(request.query), dict(request.headers))
        self.seen.append(seen)
        request[_SEEN] = seen
        hitch = self.hitches.popleft() if self.hitches else None
        if isinstance(hitch, type):
            assert request.transport is not None
            request.transport.abort()
            raise hitch
        try:
            if hitch is not None:
                await request.read()
                raise hitch
            return await handler(request)
        except ProblemError as problem:
            after = {} if problem.retry_after_s is None else {"Retry-After": str(round(problem.retry_after_s))}
            return web.json_response(
                problem.document(), status=problem.status, headers=after, content_type=CONTENT_TYPE
            )

    async def _submit(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        members, several = await self._read(request)
        if key not in self.answered:
            self.answered[key] = self._take(members, several)
            if self.outcome is not None:
                await self.finish(*self._accepted(self.answered[key]), how=self.outcome)
        answer = self.answered[key]
        if several:
            return web.json_response(answer, status=202, headers={"Location": f"/v1/batches/{answer['batch_id']}"})
        image = await self._held(request, answer["id"])
        done = "wait" in request.query and image["completed_at"] is not None
        location = {"Location": f"/v1/images/{answer['id']}"}
        return web.json_response(image if done else answer, status=200 if done else 202, headers=location)

    async def _read(self, request: web.Request) -> tuple[list[dict[str, Any]], bool]:
        """The images of a request, each `{"problem": ...}` or what is known of it, and whether they are a batch."""
        seen = request[_SEEN]
        if request.content_type == "application/json":
            seen.fields = await request.json()
            several = "images" in seen.fields
            return list(seen.fields["images"]) if several else [seen.fields], several
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            assert part.name is not None
            if part.name == "file":
                seen.files.append(bytes(await part.read()))
            else:
                seen.fields[part.name] = (await part.read()).decode()
        images: list[dict[str, Any]] = [
            {} if _is_picture(content) else {"problem": _UNSUPPORTED.document()} for content in seen.files
        ]
        if len(images) == 1 and "problem" in images[0]:
            raise _UNSUPPORTED
        return images, len(images) > 1

    def _take(self, members: list[dict[str, Any]], several: bool) -> dict[str, Any]:
        batch = uuid.uuid4().hex if several else None
        entries = [one if "problem" in one else {"id": self._new(one, batch)} for one in members]
        if batch is None:
            image = self.images[entries[0]["id"]]
            return {"id": image["id"], "status": image["status"], "links": image["links"]}
        self.batches[batch] = ids = [entry["id"] for entry in entries if "id" in entry]
        counts = {"accepted": len(ids), "rejected": len(entries) - len(ids)}
        return {"batch_id": batch, **counts, "images": entries, "links": {"self": f"/v1/batches/{batch}"}}

    def _new(self, members: Mapping[str, Any], batch: str | None) -> str:
        image_id = uuid.uuid4().hex
        links = {"self": f"/v1/images/{image_id}", "annotated": f"/v1/images/{image_id}/annotated"}
        nothing = ("completed_at", "model", "width", "height", "timings", "failure", "result_id")
        self.images[image_id] = {
            "id": image_id,
            "status": "queued",
            "batch_id": batch,
            "key": members.get("key", ""),
            "lane": members.get("lane", "online"),
            "attributes": members.get("attributes", {}),
            "submitted_at": SUBMITTED,
            "detections": [],
            "links": links if batch is None else {**links, "batch": f"/v1/batches/{batch}"},
            **dict.fromkeys(nothing),
        }
        return image_id

    def _accepted(self, answer: Mapping[str, Any]) -> list[str]:
        return self.batches[answer["batch_id"]] if "batch_id" in answer else [answer["id"]]

    async def _held(self, request: web.Request, image_id: str) -> dict[str, Any]:
        """An image, waited for as the query says."""
        if image_id not in self.images:
            raise not_found("image")
        image = self.images[image_id]
        try:
            async with asyncio.timeout(float(request.query.get("wait", 0))), self._changed:
                await self._changed.wait_for(lambda: image["completed_at"] is not None)
        except TimeoutError:
            pass
        return image

    async def _image(self, request: web.Request) -> web.Response:
        return web.json_response(await self._held(request, request.match_info["id"]))

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response(_page(list(self.images.values()), request, "images"))

    async def _delete(self, request: web.Request) -> web.Response:
        if self.images.pop(request.match_info["id"], None) is None:
            raise not_found("image")
        return web.Response(status=204)

    async def _annotated(self, request: web.Request) -> web.Response:
        image = await self._held(request, request.match_info["id"])
        if image["status"] != "completed":
            raise ProblemError(409, "no_result", "the image failed")
        kind = request.query.get("format", "jpeg")
        return web.Response(body=encode(photograph(0, 64, 48), kind.upper()), content_type=f"image/{kind}")

    async def _upload(self, request: web.Request) -> web.Response:
        place = {
            "uri": f"file:///uploads/{uuid.uuid4().hex}.jpg",
            "method": "PUT",
            "url": "/v1/uploads/t0ken",
            "headers": {"Content-Type": (await request.json())["content_type"]},
            "expires_at": COMPLETED,
        }
        return web.json_response(place, status=201)

    async def _put(self, request: web.Request) -> web.Response:
        seen = request[_SEEN]
        content = await request.read()
        seen.files.append(content)
        stored = {"uri": "file:///uploads/x.jpg", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        return web.json_response(stored, status=201)

    async def _batch(self, request: web.Request) -> web.Response:
        identifier = request.match_info["id"]
        if identifier not in self.batches:
            raise not_found("batch")
        for image_id in self.batches[identifier] if "wait" in request.query else ():
            await self._held(request, image_id)
        images = [self.images[image_id] for image_id in self.batches[identifier]]
        states = [image["status"] for image in images]
        done = all(image["completed_at"] for image in images)
        members = {
            "id": identifier,
            "status": "completed" if done else "running",
            "images": len(images),
            **{name: states.count(name) for name in ("queued", "processing", "completed", "failed")},
            "created_at": SUBMITTED,
            "closed_at": SUBMITTED,
            **_page(images, request, "results"),
            "links": {"self": f"/v1/batches/{identifier}"},
        }
        return web.json_response(members)

    async def _status(self, _: web.Request) -> web.Response:
        status = {
            "models": [{**MODEL, "last_seen_at": COMPLETED}],
            "lag": {"online": 0, "bulk": 0, "store": 0},
            "throughput_per_s": 1.5,
            "latency_ms": {"p50": 1.0, "p95": 2.0, "p99": None},
            "store": {"backend": "sqlite", "behind_s": 0.0},
        }
        return web.json_response(status)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if not self.streams:
            raise ProblemError(403, "origin_forbidden", "not from there")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        try:
            async for frame in socket:
                asked = json.loads(frame.data)
                request[_SEEN].fields = asked
                recovered = False if "since" in asked else None
                reason = {"reason": "epoch_changed"} if recovered is False else {}
                told = {"type": "subscribed", "recovered": recovered, **reason, "current": "e-0", "cursor": "e-0"}
                await socket.send_json([told])
                self._sockets[socket] = asked["filter"]
        finally:
            self._sockets.pop(socket, None)
        return socket

    def _message(self, image: Mapping[str, Any]) -> dict[str, Any]:
        self._told += 1
        common = {"image_id": image["id"], "tenant": "default", "batch_id": image["batch_id"], "key": image["key"]}
        place = {"cursor": f"e-{self._told}", "partition": 0, "offset": self._told}
        if image["status"] == "failed":
            return {"type": "failed", "id": "f", **common, **FAILURE, "failed_at_ms": SUBMITTED_MS + 250, **place}
        kept = {name: image[name] for name in ("lane", "model", "attributes", "detections")}
        size = {"image_width": image["width"], "image_height": image["height"], "timings": TIMINGS}
        times = {"submitted_at_ms": SUBMITTED_MS, "completed_at_ms": SUBMITTED_MS + 250}
        return {
            "type": "result",
            "id": image["result_id"],
            **common,
            **kept,
            **size,
            **times,
            "uri": "file:///x",
            **place,
        }


_UNSUPPORTED = ProblemError(415, "image_type_unsupported", "the file is neither JPEG, PNG nor WebP")


def _is_picture(content: bytes) -> bool:
    return content.startswith((b"\xff\xd8\xff", b"\x89PNG", b"RIFF"))


def _page(images: list[dict[str, Any]], request: web.Request, name: str) -> dict[str, Any]:
    """One page; a cursor is opaque, and here where it begins."""
    limit, cursor = int(request.query.get("limit", 50)), request.query.get("cursor")
    start = int(base64.b64decode(cursor)) if cursor else 0
    rest = start + limit < len(images)
    return {
        name: images[start : start + limit],
        "next": base64.b64encode(str(start + limit).encode()).decode() if rest else None,
    }
