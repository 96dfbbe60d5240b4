"""A typed client of the gateway, for asyncio. `producers.client.Client` is the same for everybody else."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from producers.client_batches import Batch, BatchStatus, SubmittedBatch
from producers.client_forms import Picture, SubmitOptions, request_of_one, request_of_several, upload_body
from producers.client_http import Answer, ClientPolicy, Connection, Request
from producers.client_images import Image
from producers.client_queries import AnnotatedLook, ImageQuery
from producers.client_streams import Gap, Outcome, follow
from producers.client_waits import MOST_FILTERED, UnfinishedError, Waiting
from schemas.errors import SightstreamError

LOCAL = "http://127.0.0.1:8080"
_HELD_S = 30.0
_PAGE = "200"
_DONE = 200
_PLAIN = SubmitOptions()
_ANY = ImageQuery()
_AS_IT_IS = AnnotatedLook()


class AsyncClient:
    """Speaks to one gateway; use it as `async with`, or `close` it.

    Every call is tried again by the policy, submissions with an idempotency key, so that nothing is submitted twice. Calls raise
    `ProblemError` where the gateway refuses (its `code` is stable), `UnreachableError` where none answers in time, and `RejectedError` for
    files that cannot be read. An image that failed is no error: its `status` and `failure` say so.
    """

    def __init__(self, server: str = LOCAL, token: str = "", policy: ClientPolicy | None = None) -> None:
        self._connection = Connection(server, token, policy or ClientPolicy())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End its connections."""
        await self._connection.close()

    async def submit(
        self, picture: Picture, options: SubmitOptions = _PLAIN, *, idempotency_key: str | None = None
    ) -> str:
        """Submit one picture; returns its image id once it is safe. The same key and picture give the same id, whenever and wherever."""
        answer = await self._submit(request_of_one(picture, options), idempotency_key)
        return answer.parse(lambda members: str(members["id"]))

    async def submit_batch(
        self, pictures: Sequence[Picture], options: SubmitOptions = _PLAIN, *, idempotency_key: str | None = None
    ) -> SubmittedBatch:
        """Submit up to 1,000 pictures as one batch: two or more files, or URIs. Files are read while they are sent."""
        answer = await self._submit(request_of_several(pictures, options), idempotency_key)
        return answer.parse(SubmittedBatch.parse)

    async def detect(
        self,
        picture: Picture,
        options: SubmitOptions = _PLAIN,
        *,
        timeout_s: float = 60.0,
        idempotency_key: str | None = None,
    ) -> Image:
        """Submit one picture and wait for its outcome. Raises UnfinishedError, which knows the id."""
        time_left = _countdown(timeout_s)
        request = request_of_one(picture, options).waiting(min(timeout_s, _HELD_S))
        answer = await self._submit(request, idempotency_key)
        if answer.status == _DONE:
            return answer.parse(Image.parse)
        return await self.wait(answer.parse(lambda members: str(members["id"])), timeout_s=time_left())

    async def detect_many(
        self, pictures: Iterable[Picture], options: SubmitOptions = _PLAIN, *, timeout_s: float = 60.0
    ) -> AsyncGenerator[tuple[Picture, Image | SightstreamError], None]:
        """Detect in pictures, a few at a time; gives each with its outcome, or with what `detect` raised, as they come."""
        waiting = iter(pictures)
        running: dict[asyncio.Task[Image], Picture] = {}
        try:
            while True:
                for picture in islice(waiting, self._connection.policy.concurrency - len(running)):
                    running[asyncio.create_task(self.detect(picture, options, timeout_s=timeout_s))] = picture
                if not running:
                    return
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield running.pop(task), _outcome(task)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def upload(self, picture: Path | bytes, content_type: str) -> str:
        """Put a picture straight into the store of uploads; returns the URI, for `submit`. `content_type`: `image/jpeg`, say."""
        place = (await self._send(Request.of_json("/v1/uploads", {"content_type": content_type}))).parse(dict)
        await self._send(
            Request(
                method=place["method"],
                path=place["url"],
                headers=place["headers"],
                body=lambda: upload_body(picture),
            )
        )
        return str(place["uri"])

    async def image(self, image_id: str, *, model: str | None = None) -> Image:
        """An image as it stands; with a `model` (`name@version`) as that version saw it, also in a silent replay."""
        if model is None:
            return await self._image(image_id, 0.0)
        return (await self._send(_get(_image_path(image_id), ("model", model)))).parse(Image.parse)

    async def wait(self, image_id: str, *, timeout_s: float = 60.0) -> Image:
        """An image once it has its outcome. Raises UnfinishedError."""
        time_left = _countdown(timeout_s)
        while True:
            image = await self._image(image_id, min(time_left(), _HELD_S))
            if image.finished:
                return image
            if time_left() <= 0:
                raise UnfinishedError([image_id])

    async def outcomes(
        self, images: SubmittedBatch | Sequence[str], *, timeout_s: float | None = None
    ) -> AsyncGenerator[Image, None]:
        """Each of these images, or each that was accepted of a batch, once it has its outcome. Raises UnfinishedError.

        A websocket tells of them; where there can be none, the gateway is asked.
        """
        wanted: dict[str, Any] = {}
        if isinstance(images, SubmittedBatch):
            ids, wanted["batch"] = images.accepted, images.id
        else:
            ids = tuple(images)
            if len(ids) <= MOST_FILTERED:
                wanted["image"] = list(ids)
        waiting = Waiting(self._connection, self._image, ids, wanted)
        async with aclosing(waiting.outcomes(timeout_s)) as outcomes:
            async for image in outcomes:
                yield image

    async def images(self, query: ImageQuery = _ANY) -> AsyncGenerator[Image, None]:
        """Images, newest first, read page by page."""
        async for members in self._pages("/v1/images", query.pairs(), "images"):
            yield members

    async def batch(self, batch_id: str) -> Batch:
        """A batch as it stands, without its images."""
        return (await self._send(_get(_batch_path(batch_id), ("limit", "1")))).parse(Batch.parse)

    async def wait_batch(self, batch_id: str, *, timeout_s: float = 600.0) -> Batch:
        """A batch once all its images have their outcome. Raises UnfinishedError."""
        time_left = _countdown(timeout_s)
        while True:
            request = _get(_batch_path(batch_id), ("limit", "1")).waiting(min(time_left(), _HELD_S))
            batch = (await self._send(request)).parse(Batch.parse)
            if batch.status is BatchStatus.COMPLETED:
                return batch
            if time_left() <= 0:
                raise UnfinishedError([batch_id])

    async def batch_images(self, batch_id: str, *, model: str | None = None) -> AsyncGenerator[Image, None]:
        """The images of a batch, in whatever state, read page by page; with a `model` (`name@version`) what it saw, as it saw it."""
        async for image in self._pages(_batch_path(batch_id), [("model", model)] if model else [], "results"):
            yield image

    async def annotated(self, image_id: str, look: AnnotatedLook = _AS_IT_IS) -> bytes:
        """The picture with its boxes drawn, as a file. Raises ProblemError 409 until it is completed."""
        request = _get(f"{_image_path(image_id)}/annotated", *look.pairs())
        return (await self._send(request)).body

    async def delete(self, image_id: str) -> None:
        """Have an image and its results forgotten."""
        await self._send(Request(method="DELETE", path=_image_path(image_id)))

    async def status(self) -> Mapping[str, Any]:
        """How the service is doing, as `GET /v1/status` says it."""
        return (await self._send(_get("/v1/status"))).parse(dict)

    async def stream(
        self, wanted: Mapping[str, Any] | None = None, *, since: str | None = None
    ) -> AsyncGenerator[Outcome | Gap, None]:
        """Outcomes as they come, without end. `wanted` is a filter of docs/notifier.md, `since` the last cursor seen.

        The first is a Gap unless `since` could be resumed; at each Gap whoever needs everything reads `images`.
        """
        async with aclosing(follow(self._connection, wanted or {}, since)) as told:
            async for item in told:
                yield item

    async def _send(self, request: Request) -> Answer:
        return await self._connection.send(request)

    async def _submit(self, request: Request, idempotency_key: str | None) -> Answer:
        headers = {**request.headers, "Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return await self._send(replace(request, headers=headers))

    async def _image(self, image_id: str, wait_s: float) -> Image:
        return (await self._send(_get(_image_path(image_id)).waiting(wait_s))).parse(Image.parse)

    async def _pages(self, path: str, query: list[tuple[str, str]], member: str) -> AsyncGenerator[Image, None]:
        cursor: str | None = ""
        while cursor is not None:
            place = [("cursor", cursor)] if cursor else []
            answer = await self._send(_get(path, *query, ("limit", _PAGE), *place))
            images, cursor = answer.parse(lambda page: ([Image.parse(one) for one in page[member]], page["next"]))
            for image in images:
                yield image


def _get(path: str, *query: tuple[str, str]) -> Request:
    return Request(method="GET", path=path, query=query)


def _image_path(image_id: str) -> str:
    return f"/v1/images/{quote(image_id, safe='')}"


def _batch_path(batch_id: str) -> str:
    return f"/v1/batches/{quote(batch_id, safe='')}"


def _countdown(seconds: float) -> Callable[[], float]:
    """How many seconds are left, never fewer than none."""
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    return lambda: max(0.0, end - clock())


def _outcome(task: asyncio.Task[Image]) -> Image | SightstreamError:
    """What a task came to; raises what nobody expects."""
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, SightstreamError):
        return error
    raise error
