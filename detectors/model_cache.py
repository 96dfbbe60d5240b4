"""The files of model versions on this machine, each checked: what is in the cache is what the registry says it is."""

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from detectors.model_files import ModelFiles
from schemas.errors import BusyError, Reason, RejectedError
from schemas.models import FileRef, ModelVersion


class ModelCache:
    """A folder with one folder for each version's files, named by their digests. Several processes may share it."""

    def __init__(self, directory: Path, files: ModelFiles) -> None:
        self._directory, self._files = directory, files

    def fetch(self, version: ModelVersion) -> Path:
        """The model's file, with all that belongs to it beside it under its own name; fetched where it is not here.

        Each file's digest is checked each time, since a disk may change what it keeps. Raises RejectedError for a file that is missing or
        not what it should be, BusyError where it cannot be had now.
        """
        if not version.files:
            raise RejectedError(Reason.RECORD_INVALID, f"{version.reference} names no files")
        names = [_name(file) for file in version.files]
        if len(set(names)) < len(names):
            raise RejectedError(Reason.RECORD_INVALID, f"two files of {version.reference} have one name")
        folder = self._directory / _digest_of(version.files)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, file in zip(names, version.files, strict=True):
                self._keep(file, folder / name)
        except OSError as error:
            raise BusyError(Reason.STORAGE_UNAVAILABLE, f"the model cache {folder} fails: {error}", 10.0) from error
        return folder / names[0]

    def _keep(self, file: FileRef, path: Path) -> None:
        """Have the file there. Written aside and renamed, so that a name in the cache is never half a file."""
        if _has(path, file):
            return
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as target, self._files.open(file.uri) as pieces:
                digest, size = hashlib.sha256(), 0
                for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    if file.bytes and size > file.bytes:
                        break
                    target.write(piece)
                target.flush()
                os.fsync(target.fileno())
            if digest.hexdigest() != file.sha256.lower() or (file.bytes and size != file.bytes):
                raise RejectedError(
                    Reason.RECORD_INVALID,
                    f"{file.uri} is not the file that was added: its sha256 is {digest.hexdigest()}, not {file.sha256}",
                )
            Path(name).replace(path)
        finally:
            with suppress(FileNotFoundError):
                Path(name).unlink()


def _has(path: Path, file: FileRef) -> bool:
    try:
        with path.open("rb") as kept:
            return hashlib.file_digest(kept, "sha256").hexdigest() == file.sha256.lower()
    except FileNotFoundError:
        return False


def _name(file: FileRef) -> str:
    """The last part of the URI: backends find what belongs to a model by its name."""
    name = unquote(urlsplit(file.uri).path).rpartition("/")[2]
    if not name or name.startswith(".") or "\0" in name or not _is_sha256(file.sha256):
        raise RejectedError(Reason.RECORD_INVALID, f"{file.uri!r} is no file with a name and a sha256")
    return name


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text.lower()) <= set("0123456789abcdef")


def _digest_of(files: tuple[FileRef, ...]) -> str:
    """One file's own digest; of several, one over all of them and their names."""
    if len(files) == 1:
        return files[0].sha256.lower()
    return hashlib.sha256("\n".join(f"{file.sha256.lower()} {_name(file)}" for file in files).encode()).hexdigest()
