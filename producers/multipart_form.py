"""A `multipart/form-data` body as it arrives: first its fields, then its files one after the other, none of them held here."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from schemas.problems import ProblemError

MAX_FIELD_BYTES = 16 * 1024
_MAX_FIELDS = 32
_FILE = "file"


@dataclass(frozen=True, slots=True)
class Field:
    """A field and its text."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class FileBegins:
    """A file part begins; its bytes follow."""


@dataclass(frozen=True, slots=True)
class FileEnds:
    """All bytes of the file part have come."""


FormEvent: TypeAlias = Field | FileBegins | bytes | FileEnds


def boundary_of(content_type: str) -> str:
    """The boundary that a Content-Type header names. Raises ProblemError: 400 `invalid_request`."""
    _, options = parse_options_header(content_type)
    boundary = str(options.get("boundary", ""))
    if not (0 < len(boundary) <= 200 and boundary.isascii() and boundary.isprintable()):
        raise _malformed("the Content-Type of a form names its boundary")
    return boundary


async def read_form(body: AsyncIterator[bytes], boundary: str, max_files: int) -> AsyncGenerator[FormEvent, None]:
    """What a form says, in its order. File names are not even looked at.

    Raises ProblemError: 400 `invalid_request` (also for a body that ends too soon), 413 `too_many_images`.
    """
    reader = _Reader(boundary, max_files)
    async for chunk in body:
        for event in reader.read(chunk):
            yield event
    reader.close()


class _Reader:
    def __init__(self, boundary: str, max_files: int) -> None:
        self._parser = PushMultipartParser(
            boundary, max_header_size=4096, max_header_count=8, max_segment_count=max_files + _MAX_FIELDS
        )
        self._max_files, self._files = max_files, 0
        self._field: list[bytes] | None = None  # of the field that is being read; None within a file
        self._field_bytes = 0
        self._name = ""

    def read(self, chunk: bytes) -> Iterator[FormEvent]:
        try:
            for event in self._parser.parse(chunk):
                if event is None:
                    yield self._end()
                elif isinstance(event, MultipartSegment):
                    yield from self._begin(event)
                elif self._field is None:
                    yield bytes(event)
                else:
                    self._gather(event)
        except ParserLimitReached as error:
            raise _malformed("a part has too long or too many headers, or there are too many parts") from error
        except (MultipartError, UnicodeError) as error:
            raise _malformed("the body is no multipart/form-data of its boundary") from error

    def close(self) -> None:
        try:
            self._parser.close()
        except MultipartError as error:
            raise _malformed("the body ends before its last boundary") from error

    def _begin(self, part: MultipartSegment) -> Iterator[FormEvent]:
        if part.name == _FILE:
            self._field, self._files = None, self._files + 1
            if self._files > self._max_files:
                raise ProblemError(413, "too_many_images", f"one request brings at most {self._max_files} images")
            yield FileBegins()
            return
        if self._files:
            raise _malformed("fields come before the files, since files are taken as they come")
        if part.filename is not None:
            raise _malformed(f"a part that is a file is named {_FILE!r}")
        self._name, self._field, self._field_bytes = part.name or "", [], 0

    def _gather(self, data: bytes) -> None:
        assert self._field is not None
        self._field_bytes += len(data)
        if self._field_bytes > MAX_FIELD_BYTES:
            raise _malformed(f"a field has at most {MAX_FIELD_BYTES} bytes")
        self._field.append(bytes(data))

    def _end(self) -> FormEvent:
        if self._field is None:
            return FileEnds()
        return Field(self._name, b"".join(self._field).decode())


def _malformed(detail: str) -> ProblemError:
    return ProblemError(400, "invalid_request", detail)
