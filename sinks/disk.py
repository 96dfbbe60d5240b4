"""The few file operations that the Parquet protocol is made of, and what each makes durable."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from schemas.errors import BusyError, Reason

# Anything else (a wrong path, a missing file) is a bug or damage, and is not waited for.
_TRANSIENT = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENODEV,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EPERM,
        errno.EROFS,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


def busy(error: OSError, retry_after_s: float) -> BusyError:
    """What to raise for a storage that is full, read-only or failing; raises `error` itself if waiting cannot help."""
    if error.errno not in _TRANSIENT:
        raise error
    return BusyError(Reason.STORAGE_UNAVAILABLE, f"the storage refuses: {error}", retry_after_s)


def _nothing() -> None:
    pass


class Disk:
    """A local or POSIX-like network file system with hard links. All paths must lie on one file system."""

    def __init__(self) -> None:
        self._durable: set[Path] = set()

    def create(self, path: Path, data: memoryview, written: Callable[[], None] = _nothing) -> None:
        """A new file, its content durable; its name is durable only after `sync(path.parent)`. `written` is called before the sync."""
        with path.open("xb", buffering=0) as file:
            while data:
                data = data[file.write(data) :]
            written()
            os.fsync(file.fileno())

    def link(self, source: Path, target: Path) -> None:
        """A second name for a file, durable. Raises FileExistsError if `target` exists: of many callers one wins."""
        os.link(source, target)
        self.sync(target.parent)

    def rename(self, source: Path, target: Path) -> None:
        """Another name for a file, atomic and durable."""
        source.rename(target)
        self.sync(target.parent)
        self.sync(source.parent)

    def make_directory(self, path: Path) -> None:
        """A directory and those above it, durable. Fine if it exists."""
        if path in self._durable:
            return
        if path != path.parent:
            self.make_directory(path.parent)
            path.mkdir(exist_ok=True)
            self.sync(path.parent)  # also if it was there: whoever made it may have died before this
        self._durable.add(path)

    def remove(self, path: Path) -> None:
        """Remove a file if it is there; not durable, for nothing depends on it."""
        path.unlink(missing_ok=True)

    def sync(self, directory: Path) -> None:
        """Make the names in a directory durable."""
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
