"""Reading image files under allowed directories."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from schemas.errors import BusyError, Reason, RejectedError

_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_DENIED = {errno.EACCES, errno.EPERM}
_RETRY_AFTER_S = 5.0


class FileReader:
    """Reads regular files that truly lie under one of the `roots`, whatever links and dots a reference is made of."""

    def __init__(self, roots: Sequence[Path], max_bytes: int) -> None:
        self._roots = tuple(os.path.realpath(root) for root in roots)
        self._max_bytes = max_bytes

    def read(self, uri: str) -> bytes:
        """The bytes of a `file:` URI. Blocks.

        Raises RejectedError if it is outside the roots, missing, forbidden, no regular file or too large; BusyError if
        the file system fails for another reason, such as too many open files.
        """
        path = _parse(uri)
        root, inside = self._locate(path)
        try:
            descriptor = _open_beneath(root, inside)
            try:
                size = self._check(os.fstat(descriptor))
                with open(descriptor, "rb", closefd=False) as file:
                    return file.read(size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise map_os_error(error) from error

    def _check(self, status: os.stat_result) -> int:
        """The size of a file that may be read."""
        if not stat.S_ISREG(status.st_mode):
            raise RejectedError(Reason.URI_FORBIDDEN, "not a regular file")
        if status.st_size > self._max_bytes:
            raise RejectedError(Reason.IMAGE_TOO_LARGE, f"{status.st_size} bytes; at most {self._max_bytes} are read")
        return status.st_size

    def _locate(self, path: str) -> tuple[str, str]:
        if not self._roots:
            raise RejectedError(
                Reason.URI_FORBIDDEN, "file references are refused: no directory of images is allowed by the settings"
            )
        real = os.path.realpath(path)
        for root in self._roots:
            if os.path.commonpath((root, real)) == root:
                return root, os.path.relpath(real, root)
        raise RejectedError(Reason.URI_FORBIDDEN, "the file lies outside the allowed directories")


def map_os_error(error: OSError) -> RejectedError | BusyError:
    """What to do about a failure of the file system: give the image up, or try again later."""
    if error.errno in _GONE:
        return RejectedError(Reason.IMAGE_NOT_FOUND, "there is no such file")
    if error.errno in _DENIED:
        return RejectedError(Reason.IMAGE_FORBIDDEN, "the file may not be read")
    if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
        return RejectedError(Reason.URI_FORBIDDEN, "not a regular file")
    return BusyError(Reason.FETCH_FAILED, f"the file system fails: {error.strerror or error}", _RETRY_AFTER_S)


def _parse(uri: str) -> str:
    """The absolute path that a `file:` URI names."""
    parts = urlsplit(uri)
    path = os.fsdecode(unquote_to_bytes(parts.path))
    if parts.netloc not in {"", "localhost"} or not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise RejectedError(Reason.URI_FORBIDDEN, "a file reference is file:///absolute/path, without '..'")
    if parts.query or parts.fragment:
        raise RejectedError(Reason.URI_FORBIDDEN, "'?' and '#' in a file's name are written %3F and %23")
    return path


def _open_beneath(root: str, inside: str) -> int:
    """Open root/inside one step at a time, following no link: nobody can swap a directory for one between check and use."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    *directories, name = inside.split("/")
    here = os.open(root, flags | os.O_DIRECTORY)
    try:
        for directory in directories:
            parent, here = here, os.open(directory, flags | os.O_DIRECTORY, dir_fd=here)
            os.close(parent)
        # Not blocking, as opening a pipe would wait for its writer.
        return os.open(name, flags | os.O_NONBLOCK, dir_fd=here)
    finally:
        os.close(here)
