"""Annotated pictures for who asks: fetched, drawn by a few threads, and kept a little while."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.errors import BusyError, Reason, RejectedError
from schemas.problems import ProblemError
from sinks.annotated import Drawing, Drawn, Encoding, annotate
from sinks.results_policy import ResultsPolicy
from sinks.stored import StoredImage, StoredResult

_STYLE = "1"  # counted up when pictures come to look different, so that nobody keeps old ones
_TOLD = {Reason.IMAGE_CORRUPT, Reason.IMAGE_TOO_MANY_PIXELS}


class Picture(Protocol):
    """A decoded picture: `pixels` (uint8, RGB, (height, width, 3)) may be reduced, `width` and `height` are of the whole frame."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """What is drawn on, in a copy."""

    @property
    def width(self) -> int:
        """Pixels across the frame in which boxes are given."""

    @property
    def height(self) -> int:
        """Pixels down that frame."""


LoadPicture = Callable[[str, str | None], Awaitable[Picture]]
"""Fetches and decodes what a URI names, and checks its sha256 (hex) if there is one. Raises RejectedError or BusyError."""


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """How somebody wants a picture: boxes of at least `min_score` and, unless None, of these `labels`; longest side in pixels."""

    encoding: Encoding = "jpeg"
    min_score: float = 0.0
    labels: frozenset[str] | None = None
    max_side: int | None = None


class ResultPictures:
    """Draws pictures on threads of its own; close it."""

    def __init__(self, load: LoadPicture, policy: ResultsPolicy | None = None) -> None:
        self._load, self._policy = load, policy or ResultsPolicy()
        self._threads = ThreadPoolExecutor(self._policy.drawers, "drawing")
        self._waiting = 0
        self._kept: OrderedDict[tuple[str, str, str], Drawn] = OrderedDict()
        self._kept_bytes = 0

    def close(self) -> None:
        """Take no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def etag(self, image: StoredImage, wanted: PictureRequest) -> str:
        """What the picture is a function of, known before it is drawn."""
        labels = None if wanted.labels is None else sorted(wanted.labels)
        made_of = (_STYLE, _result_of(image).id, wanted.encoding, wanted.min_score, labels, self._side(wanted))
        return hashlib.blake2b(repr(made_of).encode(), digest_size=16).hexdigest()

    async def draw(self, image: StoredImage, wanted: PictureRequest) -> Drawn:
        """The picture of an image that has a result.

        Raises ProblemError: 422 or 424 where the picture cannot be had (any more), 503 where that may change.
        """
        place = (image.tenant, image.id, self.etag(image, wanted))
        if (kept := self._kept.get(place)) is not None:
            self._kept.move_to_end(place)
            return kept
        if self._waiting >= self._policy.drawn_waiting:
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", "too many pictures are being drawn", 2.0)
        self._waiting += 1
        try:
            drawn = await self._draw(image, wanted)
        finally:
            self._waiting -= 1
        self._keep(place, drawn)
        return drawn

    async def _draw(self, image: StoredImage, wanted: PictureRequest) -> Drawn:
        result = _result_of(image)
        picture = await self._fetch(image)
        if (result.width, result.height) != (picture.width, picture.height):
            raise _unavailable("the picture is not the one any more in which the boxes were found")
        boxes = [
            box
            for box in result.detections()
            if box.score >= wanted.min_score and (wanted.labels is None or box.label in wanted.labels)
        ]
        drawing = Drawing(
            boxes=boxes,
            frame=(result.width, result.height),
            max_side=self._side(wanted),
            encoding=wanted.encoding,
            font=self._policy.font,
        )
        return await asyncio.get_running_loop().run_in_executor(self._threads, annotate, picture.pixels, drawing)

    async def _fetch(self, image: StoredImage) -> Picture:
        try:
            return await self._load(image.uri, image.sha256)
        except BusyError as error:
            detail = "the picture cannot be fetched now"
            again_s = max(error.retry_after_s, 1.0)
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "storage_unavailable", detail, again_s, {"reason": error.reason}
            ) from error
        except RejectedError as error:
            if error.reason in _TOLD:
                detail = "the picture cannot be decoded any more"
                raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, error.reason, detail) from error
            raise _unavailable("the picture cannot be had any more", error.reason) from error

    def _side(self, wanted: PictureRequest) -> int:
        return min(wanted.max_side or self._policy.picture_side, self._policy.picture_side)

    def _keep(self, place: tuple[str, str, str], drawn: Drawn) -> None:
        if (old := self._kept.pop(place, None)) is not None:
            self._kept_bytes -= len(old.content)
        self._kept[place] = drawn
        self._kept_bytes += len(drawn.content)
        while self._kept_bytes > self._policy.drawn_bytes:
            _, old = self._kept.popitem(last=False)
            self._kept_bytes -= len(old.content)


def _result_of(image: StoredImage) -> StoredResult:
    if image.result is None:
        raise ValueError("an image without a result has nothing to draw")
    return image.result


def _unavailable(detail: str, reason: str = "changed") -> ProblemError:
    return ProblemError(HTTPStatus.FAILED_DEPENDENCY, "picture_unavailable", detail, extra={"reason": reason})
