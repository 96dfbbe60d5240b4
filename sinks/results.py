"""The routes out: images, batches, annotated pictures, deletion and the service's figures."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from aiohttp import web

from schemas.errors import DeliveryError
from schemas.identity import Scope
from schemas.problems import ProblemError
from sinks.base import Partition
from sinks.exports import ParquetExport
from sinks.exports_coco import CocoExport
from sinks.results_http import (
    Representation,
    answer,
    as_problems,
    attachment,
    negotiated,
    not_modified,
    picture,
    stream,
)
from sinks.results_pictures import PictureRequest, ResultPictures
from sinks.results_policy import ResultsPolicy
from sinks.results_query import Query, caller, image_query, path_id
from sinks.results_reads import ResultReads
from sinks.results_status import ServiceStatus
from sinks.results_view import batch_text, image_text, page_text
from sinks.store_base import PAGE_LIMIT, Page
from sinks.stored import StoredBatch, StoredImage

Forget = Callable[[str, str], Awaitable[tuple[Partition, int]]]
"""Puts a tenant's wish to forget an image on the log: where it stands there, confirmed. Raises DeliveryError or BusyError."""


class PictureFormat(StrEnum):
    """How an annotated picture may be had; `json`: a JPEG as a data URL."""

    JPEG = "jpeg"
    WEBP = "webp"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class ResultParts:
    """What the routes need."""

    reads: ResultReads
    pictures: ResultPictures
    status: ServiceStatus
    forget: Forget
    policy: ResultsPolicy


def add_routes(app: web.Application, parts: ResultParts) -> None:
    """Mount the routes. They expect the caller in `request["principal"]`, and a middleware that renders ProblemError."""
    results = _Results(parts)
    routes = app.router
    routes.add_get("/v1/images", as_problems(results.search))
    routes.add_get("/v1/images/{id}", as_problems(results.image))
    routes.add_delete("/v1/images/{id}", as_problems(results.delete))
    routes.add_get("/v1/images/{id}/annotated", as_problems(results.annotated))
    routes.add_get("/v1/batches/{id}", as_problems(results.batch))
    routes.add_get("/v1/status", as_problems(results.status))

    async def let_go(_: web.Application) -> None:
        parts.reads.waits.close()

    async def close(_: web.Application) -> None:
        parts.pictures.close()

    app.on_shutdown.append(let_go)
    app.on_cleanup.append(close)


class _Results:
    def __init__(self, parts: ResultParts) -> None:
        self._reads, self._pictures, self._status = parts.reads, parts.pictures, parts.status
        self._forget, self._policy = parts.forget, parts.policy

    async def search(self, request: web.Request) -> web.Response:
        """Images of the caller, newest first."""
        query = image_query(request, caller(request, Scope.READ))
        page = await self._reads.store.images(query)
        return answer(request, page_text(page.items, page.next))

    async def image(self, request: web.Request) -> web.Response:
        """One image, when it has its outcome or the time is up."""
        tenant = caller(request, Scope.READ)
        query = Query(request, ("wait", "model"))
        wait_s, model = query.wait_s(), query.version("model")
        image_id = path_id(request, "image")
        if model is not None:
            return answer(request, image_text(await self._reads.image_as_of(tenant, image_id, model)))
        image = await self._reads.image(tenant, image_id, wait_s)
        return answer(request, image_text(image), retry_after_s=None if image.finished else self._policy.retry_after_s)

    async def delete(self, request: web.Request) -> web.Response:
        """Forget an image. Once more changes nothing."""
        tenant = caller(request, Scope.DELETE)
        Query(request, ())
        image_id = path_id(request, "image")
        try:
            await self._reads.image(tenant, image_id)
        except ProblemError as error:
            if error.code == "deleted":
                return web.Response(status=HTTPStatus.NO_CONTENT)
            raise
        try:
            partition, offset = await self._forget(tenant, image_id)
        except DeliveryError as error:
            detail = "the deletion was not confirmed; it may have been taken, and may be sent again"
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "not_confirmed", detail, 1.0) from error
        # Whoever reads next, from whichever gateway, should find it gone; if the store is slow it is gone a little later.
        await self._reads.fresh.reaches({partition: offset + 1})
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def annotated(self, request: web.Request) -> web.Response:
        """An image with its boxes drawn."""
        tenant = caller(request, Scope.READ)
        query = Query(request, ("format", "min_score", "labels", "max_side", "model"))
        chosen = query.choice("format", PictureFormat) or PictureFormat.JPEG
        wanted = _picture_request(query, chosen)
        model, image_id = query.version("model"), path_id(request, "image")
        reads = self._reads
        image = await (reads.image_as_of(tenant, image_id, model) if model else reads.image(tenant, image_id))
        self._check_drawable(image)
        etag = f"{self._pictures.etag(image, wanted)}-{chosen}"
        if (unchanged := not_modified(request, etag)) is not None:
            return unchanged
        drawn = await self._pictures.draw(image, wanted)
        if chosen is PictureFormat.JSON:
            data = base64.b64encode(drawn.content).decode()
            shown = {"data_url": f"data:image/jpeg;base64,{data}", "width": drawn.width, "height": drawn.height}
            return picture(json.dumps(shown).encode(), "application/json", etag, f"{image.id}.json")
        return picture(drawn.content, f"image/{chosen}", etag, f"{image.id}.{chosen}")

    async def batch(self, request: web.Request) -> web.StreamResponse:
        """A batch: how it stands, and a page of its images; or all of it as a file."""
        tenant = caller(request, Scope.READ)
        query = Query(request, ("wait", "limit", "cursor", "format", "model"))
        limit, cursor, model = query.limit(), query.cursor(), query.version("model")
        kind = negotiated(request, query.choice("format", Representation))
        batch = await self._reads.batch(tenant, path_id(request, "batch"), query.wait_s())
        retry_after_s = None if batch.status == "completed" else self._policy.retry_after_s
        if kind is Representation.JSON:
            page = await self._reads.batch_images(batch, limit, cursor, model)
            response = answer(request, batch_text(batch, page.items, page.next), retry_after_s=retry_after_s)
            response.headers["Vary"] = "Accept"
            return response
        export = CocoExport(batch) if kind is Representation.COCO else ParquetExport()
        headers = {**attachment(batch.id, kind), "Vary": "Accept"}
        if retry_after_s is not None:
            headers["Retry-After"] = str(max(1, round(retry_after_s)))
        return await stream(request, export, self._pages(batch, model), headers)

    async def status(self, request: web.Request) -> web.Response:
        """How the whole service does."""
        caller(request, Scope.READ)
        Query(request, ())
        return answer(request, json.dumps(await self._status.figures(), separators=(",", ":")))

    def _check_drawable(self, image: StoredImage) -> None:
        if not image.finished:
            detail = "there is no result to draw yet"
            raise ProblemError(HTTPStatus.CONFLICT, "image_unfinished", detail, self._policy.retry_after_s)
        if image.result is None:
            raise ProblemError(HTTPStatus.CONFLICT, "no_result", "the image failed: there is nothing to draw")

    async def _pages(self, batch: StoredBatch, model: str | None) -> AsyncIterator[Page[StoredImage]]:
        cursor = None
        while True:
            page = await self._reads.batch_images(batch, PAGE_LIMIT, cursor, model)
            yield page
            cursor = page.next
            if cursor is None:
                return


def _picture_request(query: Query, chosen: PictureFormat) -> PictureRequest:
    labels = query.text("labels", 4096)
    return PictureRequest(
        encoding="webp" if chosen is PictureFormat.WEBP else "jpeg",
        min_score=query.number("min_score", 1.0) or 0.0,
        labels=None if labels is None else frozenset(labels.split(",")),
        max_side=query.whole("max_side", 16, 8192),
    )
