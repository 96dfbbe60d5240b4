"""How results are answered over HTTP: representations, ETags, streams, and failures as problems."""

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from enum import StrEnum
from http import HTTPStatus

from aiohttp import hdrs, web

from schemas.errors import BusyError
from schemas.problems import ProblemError
from sinks.exports import PARQUET_TYPE, Export
from sinks.exports_coco import COCO_TYPE
from sinks.store_base import InvalidCursorError, Page
from sinks.store_fresh import StoreBehindError
from sinks.stored import StoredImage

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
# Whoever asks again must ask here: a deleted image is not to be seen in a cache.
_CACHING = {"Cache-Control": "private, no-cache"}


class Representation(StrEnum):
    """How a batch may be had."""

    JSON = "json"
    COCO = "coco"
    PARQUET = "parquet"


TYPES = {
    Representation.JSON: "application/json",
    Representation.COCO: COCO_TYPE,
    Representation.PARQUET: PARQUET_TYPE,
}


def as_problems(handler: Handler) -> Handler:
    """A handler whose failures are problems with stable codes."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except InvalidCursorError as error:
            raise ProblemError(
                HTTPStatus.BAD_REQUEST, "invalid_query", "the cursor was not given out for this query"
            ) from error
        except StoreBehindError as error:
            detail = "the results are being caught up with; ask again"
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "store_behind", detail, error.retry_after_s) from error
        except BusyError as error:
            detail = "the results cannot be read now"
            again_s = max(error.retry_after_s, 1.0)
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "store_unavailable", detail, again_s) from error

    return handle


def answer(request: web.Request, text: str, *, retry_after_s: float | None = None) -> web.Response:
    """JSON with its ETag, or 304 where the caller has it already. `retry_after_s`: when to ask again for what is unfinished."""
    body = text.encode()
    etag = hashlib.blake2b(body, digest_size=16).hexdigest()
    response = not_modified(request, etag) or web.Response(body=body, content_type="application/json")
    response.etag = etag
    response.headers.update(_CACHING)
    if retry_after_s is not None:
        response.headers[hdrs.RETRY_AFTER] = str(max(1, round(retry_after_s)))
    return response


def picture(content: bytes, content_type: str, etag: str, name: str) -> web.Response:
    """An encoded picture that no browser takes for anything else."""
    headers = {**_CACHING, **_named(name, "inline"), "X-Content-Type-Options": "nosniff"}
    response = web.Response(body=content, content_type=content_type, headers=headers)
    response.etag = etag
    return response


def not_modified(request: web.Request, etag: str) -> web.Response | None:
    """304 where `If-None-Match` names the ETag."""
    known = request.if_none_match
    if known is None or not any(one.value in {etag, "*"} for one in known):
        return None
    response = web.Response(status=HTTPStatus.NOT_MODIFIED, headers=_CACHING)
    response.etag = etag
    return response


def negotiated(request: web.Request, asked: Representation | None) -> Representation:
    """What is asked for, else the best that `Accept` takes. Raises ProblemError 406."""
    if asked is not None:
        return asked
    accept = ",".join(request.headers.getall(hdrs.ACCEPT, [])) or "*/*"
    weights = {kind: _weight(accept, TYPES[kind]) for kind in Representation}
    best = max(Representation, key=lambda kind: weights[kind])  # of equals the first
    if weights[best] <= 0:
        raise ProblemError(HTTPStatus.NOT_ACCEPTABLE, "not_acceptable", f"there is: {', '.join(TYPES.values())}")
    return best


async def stream(
    request: web.Request, export: Export, pages: AsyncIterator[Page[StoredImage]], headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send a file page by page. What fails before the first page is a problem; later the connection breaks, lest it be taken for whole."""
    try:
        first = await anext(pages)
        response = web.StreamResponse(headers={**_CACHING, **headers, "X-Content-Type-Options": "nosniff"})
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            await _send_all(request, response, export, first, pages)
        return response
    finally:
        export.close()  # at once: whoever is cancelled here waits for nothing more


async def _send_all(
    request: web.Request,
    response: web.StreamResponse,
    export: Export,
    first: Page[StoredImage],
    others: AsyncIterator[Page[StoredImage]],
) -> None:
    try:
        await response.write(await asyncio.to_thread(export.begin))
        await _send(response, await asyncio.to_thread(export.add, first.items))
        async for page in others:
            await _send(response, await asyncio.to_thread(export.add, page.items))
        ending = export.end()
        while (chunk := await asyncio.to_thread(next, ending, None)) is not None:
            await _send(response, chunk)
    except BusyError as error:
        log.warning("an export breaks off: %s", error)
        if request.transport is not None:
            request.transport.abort()


def attachment(name: str, kind: Representation) -> dict[str, str]:
    """Headers of a file to be saved."""
    ending = "parquet" if kind is Representation.PARQUET else "coco.json"
    return {hdrs.CONTENT_TYPE: TYPES[kind], **_named(f"{name}.{ending}", "attachment")}


async def _send(response: web.StreamResponse, chunk: bytes) -> None:
    if chunk:
        await response.write(chunk)


def _named(name: str, disposition: str) -> dict[str, str]:
    """A file's name in a header, if it is one that needs no quoting."""
    known = _NAME.fullmatch(name)
    return {hdrs.CONTENT_DISPOSITION: f'{disposition}; filename="{name}"' if known else disposition}


def _weight(accept: str, content_type: str) -> float:
    """The q of the most specific range that takes a type (RFC 9110, 12.5.1); 0 where none does."""
    kind = content_type.partition("/")[0]
    ranges: Collection[str] = (content_type, f"{kind}/*", "*/*")
    found: dict[str, float] = {}
    for entry in accept.split(",")[:50]:
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        if name in ranges:
            found[name] = max(_quality(parameters), found.get(name, 0.0))
    return next((found[name] for name in ranges if name in found), 0.0)


def _quality(parameters: Collection[str]) -> float:
    text = next((part[2:] for part in parameters if part.startswith("q=")), "1")
    return float(text) if re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", text, re.ASCII) else 0.0
