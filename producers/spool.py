"""One image while it is received: checked, hashed, and never all of it in memory unless it is small."""

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from producers.image_check import Checked, ImageCheck
from producers.upload_policy import UploadPolicy


@dataclass(frozen=True, slots=True)
class Received:
    """An image that has come whole and passed its checks. `content`: its bytes, or the file that holds them while the spool is open."""

    sha256: str
    size: int
    checked: Checked
    content: bytes | Path


class Spool:
    """Takes one image's bytes in turn; a context manager, whose end removes what it wrote to disk."""

    def __init__(self, policy: UploadPolicy, on_close: Callable[[], None] = lambda: None) -> None:
        self.size = 0
        self._policy, self._on_close = policy, on_close
        self._check = ImageCheck(policy.max_bytes, policy.max_pixels)
        self._hash = hashlib.sha256()
        self._chunks: list[bytes] = []
        self._held = 0
        self._path: Path | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget the image; a second time does nothing."""
        if self._closed:
            return
        self._closed = True
        self._chunks.clear()
        self._on_close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    async def write(self, chunk: bytes) -> None:
        """The next bytes. Raises RejectedError as soon as it cannot be an image that is taken, OSError where the disk is full."""
        self._check.feed(chunk)
        self._hash.update(chunk)
        self._chunks.append(chunk)
        self._held += len(chunk)
        self.size += len(chunk)
        if self._held > self._policy.spool_bytes:
            await self._spill()

    async def finish(self) -> Received:
        """The image, after its last bytes. Raises like `write`."""
        checked = self._check.finish()
        if self._path is None:
            content: bytes | Path = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        else:
            await self._spill()
            content = self._path
        return Received(self._hash.hexdigest(), self.size, checked, content)

    async def _spill(self) -> None:
        if self._path is None:
            handle, name = tempfile.mkstemp(prefix="sightstream-upload-", dir=self._policy.spool_dir)
            os.close(handle)
            self._path = Path(name)
        pieces, self._chunks, self._held = self._chunks, [], 0
        await asyncio.to_thread(_append, self._path, pieces)


def _append(path: Path, pieces: list[bytes]) -> None:
    with path.open("ab") as file:
        file.writelines(pieces)
