"""A server for the page: files and streams are the real ones; images live in a dictionary that outlives restarts, as the log does."""

import io
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import PIL.Image
from aiohttp import web

from infra.page.routes import add_routes as add_page
from schemas.problems import CONTENT_TYPE, ProblemError, not_found
from schemas.records import new_image_id
from sinks.api import add_routes as add_streams
from sinks.events import Event, Kind, Subject
from sinks.notifier import Hub
from sinks.outbox import Close
from tests.support.subscribers import quick

_LARGEST = 32 << 20

MODEL = {"name": "codes", "version": "1", "digest": "sha256:" + "5e" * 32}
TIMINGS = {"wait_ms": 12.4, "fetch_ms": 1.9, "decode_ms": 8.6, "inference_ms": 31.2, "total_ms": 58.0}
BOX = {"label": "linear", "class_id": 2, "score": 0.94, "box": [40.0, 30.0, 200.0, 120.0]}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Finder = Callable[[str, int, int], list[dict[str, Any]]]


class PageServer:
    """`held`: outcomes wait for `finish`. `refusals`: problems that the next uploads meet, in turn. `key`: the API key wanted, if any.
    `closed`: there are no tickets for the stream.

    `finder(name, width, height)` says what is in a picture. `requests` are methods and paths in the order in which they came.
    """

    def __init__(self, finder: Finder = lambda *_: [BOX]) -> None:
        self.finder = finder
        self.held = False
        self.key: str | None = None
        self.refusals: list[ProblemError] = []
        self.closed = False
        self.requests: list[str] = []
        self.images: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}  # idempotency key -> image id
        self._pixels: dict[str, bytes] = {}
        self._port = 0
        self._runner: web.AppRunner | None = None
        self.hub = Hub(quick(reconnect_spread_s=0.1))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Serve, with a hub that remembers nothing of the one before; always on the port of the first time."""
        self.hub = Hub(quick(reconnect_spread_s=0.1))
        self.hub.open()
        app = web.Application(middlewares=[self._gate], client_max_size=_LARGEST)
        add_page(app)
        add_streams(app, self.hub)
        app.router.add_post("/v1/images", self._submit)
        app.router.add_get("/v1/images", self._list)
        app.router.add_get("/v1/images/{id}", self._image)
        app.router.add_get("/v1/images/{id}/annotated", self._annotated)
        app.router.add_post("/v1/tickets", self._ticket)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/readyz", self._ready)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Go away as a process does that is told to."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    def part(self) -> None:
        """End every subscriber's connection, as at the end of its lifetime."""
        for outbox in tuple(self.hub._filters):
            self.hub.retire(outbox, Close.LIFETIME, "lifetime")

    async def finish(self, image_id: str, *, failed: str | None = None) -> None:
        """The outcome of an image; told to the subscribers there are."""
        image = self.images[image_id]
        now = datetime.now(UTC)
        image["completed_at"] = now.isoformat()
        if failed is None:
            image |= {"status": "completed", "model": MODEL, "timings": TIMINGS, "result_id": f"r-{image_id}"}
            image["detections"] = self.finder(image["attributes"].get("name", ""), image["width"], image["height"])
        else:
            failure = {"code": failed, "message": "the picture ends too early", "stage": "decode", "attempts": 1}
            image |= {"status": "failed", "failure": failure}
        if self._runner is not None:
            self.hub.take([_event(image, now)])

    @web.middleware
    async def _gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        try:
            self._identify(request)
            return await handler(request)
        except ProblemError as problem:
            headers = {} if problem.retry_after_s is None else {"Retry-After": str(problem.retry_after_s)}
            text = json.dumps(problem.document())
            return web.Response(status=problem.status, text=text, content_type=CONTENT_TYPE, headers=headers)

    def _identify(self, request: web.Request) -> None:
        wants = self.key is not None and request.path.startswith("/v1/") and request.path != "/v1/stream"
        if wants and request.headers.get("Authorization") != f"Bearer {self.key}":
            raise ProblemError(401, "unauthorized", "an API key is needed")

    async def _submit(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.refusals:
            raise self.refusals.pop(0)
        try:
            width, height = PIL.Image.open(io.BytesIO(body)).size
        except PIL.UnidentifiedImageError as error:
            raise ProblemError(415, "unsupported_type", "not a JPEG, PNG or WebP image") from error
        image_id = self._names.setdefault(request.headers["Idempotency-Key"], new_image_id())
        self._pixels[image_id] = body
        self.images.setdefault(
            image_id,
            {
                "id": image_id,
                "status": "queued",
                "batch_id": None,
                "key": image_id,
                "lane": "online",
                "attributes": json.loads(request.query.get("attributes", "{}")),
                "submitted_at": datetime.now(UTC).isoformat(),
                "completed_at": None,
                "model": None,
                "width": width,
                "height": height,
                "detections": [],
                "timings": None,
                "failure": None,
                "result_id": None,
                "links": {"self": f"/v1/images/{image_id}"},
            },
        )
        if not self.held:
            await self.finish(image_id)
        return web.json_response({"id": image_id, "status": "queued", "links": {}}, status=202)

    async def _image(self, request: web.Request) -> web.Response:
        return web.json_response(self._known(request))

    async def _list(self, request: web.Request) -> web.Response:
        newest = list(self.images.values())[::-1][: int(request.query["limit"])]
        return web.json_response({"images": newest, "next": None})

    async def _annotated(self, request: web.Request) -> web.Response:
        picture = PIL.Image.open(io.BytesIO(self._pixels[self._known(request)["id"]])).convert("RGB")
        side = int(request.query.get("max_side", "4096"))
        picture.thumbnail((side, side))
        kind, to = request.query["format"], io.BytesIO()
        picture.save(to, kind.upper())
        return web.Response(body=to.getvalue(), content_type=f"image/{kind}")

    async def _ticket(self, _: web.Request) -> web.Response:
        if self.closed:
            raise ProblemError(503, "not_ready", "going away", 1)
        return web.json_response({"ticket": ""}, status=201)

    async def _status(self, _: web.Request) -> web.Response:
        wave = time.monotonic() % 7
        return web.json_response(
            {
                "models": [{**MODEL, "last_seen_at": datetime.now(UTC).isoformat()}],
                "lag": {"online": round(wave), "bulk": 1204, "store": 0},
                "throughput_per_s": 31.5 + wave,
                "latency_ms": {"p50": 41.2 + wave, "p95": 88.0 + 2 * wave, "p99": 131.0 + wave},
                "store": {"backend": "sqlite", "behind_s": 0.0},
            }
        )

    async def _ready(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ready"})

    def _known(self, request: web.Request) -> dict[str, Any]:
        image = self.images.get(request.match_info["id"])
        if image is None:
            raise not_found("image")
        return image


def _event(image: dict[str, Any], now: datetime) -> Event:
    """As `sinks.events` renders it."""
    kind = Kind.FAILED if image["failure"] else Kind.RESULT
    at_ms = round(now.timestamp() * 1000)
    body = {
        "id": image["result_id"] or f"f-{image['id']}",
        "image_id": image["id"],
        "key": image["key"],
        "attributes": image["attributes"],
        "model": MODEL,
        "image_width": image["width"],
        "image_height": image["height"],
        "submitted_at_ms": at_ms - 58,
        "completed_at_ms": at_ms,
        "failed_at_ms": at_ms,
        "timings": {name: ms for name, ms in TIMINGS.items() if name != "total_ms"},
        "detections": image["detections"],
        **(image["failure"] or {}),
    }
    subject = Subject(
        kind=kind, id=body["id"], tenant="default", batch_id=None, image_id=image["id"], key=image["key"], scores={}
    )
    return Event(subject, json.dumps(body)[1:])
