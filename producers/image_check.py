"""The checks of one image while it arrives: is it a picture of a known kind, not too large, and nothing else besides."""

import re
from dataclasses import dataclass

from producers.image_headers import FIRST_BYTES, Format, Kind, Walker, tell_format
from schemas.errors import Reason, RejectedError

_END_OF_JPEG = b"\xff\xd9"
# Behind a picture only these are dangerous: what a browser, an interpreter or an archive tool would open the file as. Much else is
# found there in good files: films, depth maps, a second picture.
_FOREIGN = re.compile(rb"<(?:!doctype|html|script|\?php)[\s>]|%PDF-\d", re.IGNORECASE)
_OVERLAP = 16
_ZIP_END = b"PK\x05\x06"
_ZIP_END_BYTES = 22
_ZIP_REACH = _ZIP_END_BYTES + 65_535  # an archive's directory ends so near the end of its file, or it is none


class PolyglotError(RejectedError):
    """A picture that is something else too: markup or an archive hangs behind it."""

    def __init__(self, what: str) -> None:
        super().__init__(Reason.IMAGE_TYPE_UNSUPPORTED, f"a picture with {what} behind it")


@dataclass(frozen=True, slots=True)
class Checked:
    """What the header says: kind, and sides in pixels as they are encoded (an orientation is not applied)."""

    kind: Kind
    width: int
    height: int


class ImageCheck:
    """Takes the bytes of one file in turn and raises as soon as it cannot be a picture that a worker would take.

    It refuses nothing that `detectors.decode` decodes, but for polyglots. It decodes nothing: a file may pass here and still be corrupt.
    """

    def __init__(self, max_bytes: int, max_pixels: int) -> None:
        self._max_bytes, self._max_pixels = max_bytes, max_pixels
        self._size = 0
        self._held = b""
        self._format: Format | None = None
        self._walker: Walker | None = None
        self._advance, self._need = 0, 0
        self._sides = (0, 0)
        self._before = b""  # the last bytes before this chunk, while an end marker is looked for
        self._tail: _Tail | None = None

    def feed(self, chunk: bytes) -> None:
        """The next bytes.

        Raises RejectedError: IMAGE_TYPE_UNSUPPORTED (a `PolyglotError` too), IMAGE_TOO_LARGE, IMAGE_TOO_MANY_PIXELS, IMAGE_CORRUPT.
        """
        self._size += len(chunk)
        if self._size > self._max_bytes:
            raise RejectedError(Reason.IMAGE_TOO_LARGE, f"more than {self._max_bytes} bytes")
        if self._tail is not None:
            self._tail.feed(chunk)
        elif self._format is not None and self._walker is None:
            self._seek_end(chunk)
        else:
            self._walk(self._held + chunk if self._held else chunk)

    def finish(self) -> Checked:
        """What it was, after the last bytes. Raises like `feed`, and IMAGE_EMPTY, and IMAGE_CORRUPT where the file is cut off."""
        if self._format is None:
            self._format = tell_format(self._held)
        if not any(self._sides):
            raise RejectedError(Reason.IMAGE_CORRUPT, "the file ends within its header")
        if self._tail is not None:
            self._tail.finish()
        elif self._format.kind != "png":  # decoders forgive a PNG that lacks its last chunk, but no other
            raise RejectedError(Reason.IMAGE_CORRUPT, "the file is cut off")
        return Checked(self._format.kind, *self._sides)

    def _walk(self, data: bytes) -> None:
        if self._format is None:
            if len(data) < FIRST_BYTES:
                self._held = data
                return
            self._format = tell_format(data[:FIRST_BYTES])
            self._walker = self._format.walk(self._see_size)
            self._advance, self._need = next(self._walker)
        at = 0
        while self._walker is not None:
            step = min(self._advance, len(data) - at)
            at += step
            self._advance -= step
            if self._advance or len(data) - at < self._need:
                self._held = data[at:]
                return
            try:
                self._advance, self._need = self._walker.send(data[at : at + self._need])
            except StopIteration:
                self._walker, self._held = None, b""
        if self._format.marks_its_end:
            self._seek_end(data[at:])
        else:
            self._begin_tail(data[at:])

    def _seek_end(self, data: bytes) -> None:
        """JPEG: in the data of a scan the marker stands nowhere else, since every FF of the code is followed by 00."""
        window = self._before + data
        end = window.find(_END_OF_JPEG)
        if end < 0:
            self._before = window[-1:]
        else:
            self._begin_tail(window[end + len(_END_OF_JPEG) :])

    def _begin_tail(self, data: bytes) -> None:
        self._tail = _Tail()
        self._tail.feed(data)

    def _see_size(self, width: int, height: int) -> None:
        if not (width and height):
            raise RejectedError(Reason.IMAGE_CORRUPT, "a picture without pixels")
        if width * height > self._max_pixels:
            message = f"{width}x{height} pixels; at most {self._max_pixels} in all are decoded"
            raise RejectedError(Reason.IMAGE_TOO_MANY_PIXELS, message)
        self._sides = width, height


class _Tail:
    """What stands behind a picture."""

    def __init__(self) -> None:
        self._last = b""

    def feed(self, data: bytes) -> None:
        if not data:
            return
        window = self._last[-_OVERLAP:] + data
        if _FOREIGN.search(window):
            raise PolyglotError("markup")
        self._last = (self._last + data)[-_ZIP_REACH:]

    def finish(self) -> None:
        """An archive's directory ends with the length of a comment that fills the rest exactly; nothing else does by chance."""
        at = self._last.rfind(_ZIP_END)
        while at >= 0:
            comment = len(self._last) - at - _ZIP_END_BYTES
            if comment >= 0 and int.from_bytes(self._last[at + 20 : at + 22], "little") == comment:
                raise PolyglotError("an archive")
            at = self._last.rfind(_ZIP_END, 0, at)
