"""Pictures and options as bodies of `POST /v1/images`. Files are read while they are sent, piece by piece."""

import asyncio
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from producers.client_http import Request
from schemas.errors import Reason, RejectedError
from schemas.records import DetectParameters, Lane

Picture = Path | bytes | str
"""A file, its bytes, or a URI: a `str` with `://` in it is what the server's workers fetch, any other `str` is a file's path."""

_PIECE: Final = 256 << 10
_PIECE_S: Final = 60.0  # a server that takes no piece for so long is gone
_PATH: Final = "/v1/images"
_BYTES: Final = "application/octet-stream"  # what a file is the server tells by its first bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOptions:
    """What is asked for with a picture.

    `key`: images of one key keep their order; empty: the image's own id. `model`: None for the worker's. `callback`: an https URL that is
    told when everything of the request has its outcome.
    """

    key: str = ""
    model: str | None = None
    parameters: DetectParameters = field(default_factory=DetectParameters)
    lane: Lane = Lane.ONLINE
    attributes: Mapping[str, str] = field(default_factory=dict)
    callback: str | None = None


def request_of_one(picture: Picture, options: SubmitOptions) -> Request:
    """One image."""
    if (uri := _uri(picture)) is not None:
        return Request.of_json(_PATH, {"uri": uri, **_members(options), **_callback(options)})
    return _form([picture], options)


def request_of_several(pictures: Sequence[Picture], options: SubmitOptions) -> Request:
    """A batch. Raises ValueError for URIs among files."""
    uris = [uri for picture in pictures if (uri := _uri(picture)) is not None]
    if not uris and len(pictures) > 1:
        return _form(pictures, options)
    if len(uris) != len(pictures):
        raise ValueError("a batch is of two or more files, or of one or more URIs, not of both")
    shared = _members(options)
    return Request.of_json(_PATH, {"images": [{"uri": uri, **shared} for uri in uris], **_callback(options)})


def upload_body(picture: Path | bytes) -> aiohttp.Payload:
    """The bytes of one picture, alone. Raises RejectedError where the file cannot be read."""
    return _part(picture)


def _uri(picture: Picture) -> str | None:
    return picture if isinstance(picture, str) and "://" in picture else None


def _form(pictures: Sequence[Picture], options: SubmitOptions) -> Request:
    sources = [Path(picture) if isinstance(picture, str) else picture for picture in pictures]
    fields = dict(_fields(options))

    def body() -> aiohttp.MultipartWriter:
        writer = aiohttp.MultipartWriter("form-data")
        for name, value in fields.items():
            writer.append(value).set_content_disposition("form-data", name=name)
        for source in sources:
            part = writer.append_payload(_part(source))
            name = source.name if isinstance(source, Path) else "picture"
            part.set_content_disposition("form-data", name="file", filename=name)
        return writer

    return Request(method="POST", path=_PATH, body=body)


def _fields(options: SubmitOptions) -> Iterator[tuple[str, str]]:
    """As a form has them: flat, and all of them text."""
    members = _members(options) | _callback(options)
    members |= members.pop("parameters", {})
    for name, value in members.items():
        if name == "classes":
            yield name, ",".join(map(str, value))
        else:
            yield name, json.dumps(value) if name == "attributes" else str(value)


def _members(options: SubmitOptions) -> dict[str, Any]:
    """As JSON has them, for one image; what was not asked for is left out."""
    wanted = options.parameters
    parameters = {
        "confidence": wanted.confidence,
        "iou": wanted.iou,
        "max_detections": wanted.max_detections,
        "classes": None if wanted.classes is None else list(wanted.classes),
    }
    members = {
        "key": options.key or None,
        "model": options.model,
        "parameters": _given(parameters) or None,
        "lane": str(options.lane),
        "attributes": dict(options.attributes) or None,
    }
    return _given(members)


def _callback(options: SubmitOptions) -> dict[str, str]:
    return {} if options.callback is None else {"callback": options.callback}


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _part(source: Path | bytes) -> aiohttp.Payload:
    if isinstance(source, bytes):
        return aiohttp.BytesIOPayload(io.BytesIO(source), content_type=_BYTES)
    return _FilePart(source)


class _FilePart(aiohttp.Payload):
    """A file that is read when its turn comes, so that a batch of a thousand holds one file open and one piece in memory.

    Raises RejectedError, when it is made or while it is sent, where the file cannot be read.
    """

    _value: Path

    def __init__(self, path: Path) -> None:
        super().__init__(path, content_type=_BYTES)
        try:
            self._size = path.stat().st_size
        except OSError as error:
            raise _unreadable(path, error) from error

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send as many bytes as were announced."""
        size, sent = self._size or 0, 0
        while sent < size:
            piece = await asyncio.to_thread(self._read, sent, min(_PIECE, size - sent))
            sent += len(piece)
            async with asyncio.timeout(_PIECE_S):
                await writer.write(piece)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002 - the base's signature
        """A picture is no text."""
        raise TypeError("a picture is no text")

    def _read(self, start: int, most: int) -> bytes:
        """A piece. The file is open for this alone: who is cancelled while a thread works here leaves nothing behind."""
        try:
            with self._value.open("rb") as file:
                file.seek(start)
                piece = file.read(most)
        except OSError as error:
            raise _unreadable(self._value, error) from error
        if not piece:
            raise RejectedError(Reason.IMAGE_NOT_FOUND, f"{self._value} has become shorter while it was sent")
        return piece


def _unreadable(path: Path, error: OSError) -> RejectedError:
    reason = Reason.IMAGE_FORBIDDEN if isinstance(error, PermissionError) else Reason.IMAGE_NOT_FOUND
    return RejectedError(reason, f"{path} cannot be read: {error.strerror}")
