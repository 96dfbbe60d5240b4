"""Where uploaded images are kept: under the address of their content, once, in a folder or a bucket."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError

from producers.image_headers import Kind
from producers.spool import Received
from producers.upload_policy import UploadPolicy
from schemas.errors import ConfigurationError
from schemas.problems import ProblemError

_OWN = re.compile(
    r"(?P<tenant>[A-Za-z0-9_-]+)/"
    r"(?:(?P<shard>[0-9a-f]{2})/(?P<sha256>(?P=shard)[0-9a-f]{62})|direct/[0-9a-f]{32})\.(?P<kind>jpg|png|webp)"
)
_DIRECT = "direct"
_TYPES: dict[Kind, str] = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_RETRY_AFTER_S = 5.0
_ERRORS = (BaseError, OSError, ValueError)
_MISSING = (NotFoundError, FileNotFoundError)
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class OwnUpload:
    """A tenant's upload. `sha256`: of its content, None where the client wrote it by itself, so that nothing of it is known yet."""

    path: str
    sha256: str | None


class UploadStore:
    """`{url}/{tenant}/{sha256[:2]}/{sha256}.{jpg|png|webp}`, each object written once.

    What clients put there by a signed URL is at `{url}/{tenant}/direct/{random}.{...}`. Nothing is ever deleted here, so that nobody takes
    away what somebody else's image needs. Tenants are `schemas.identity.is_tenant`. Raises ConfigurationError for a store that cannot be.
    """

    def __init__(self, policy: UploadPolicy) -> None:
        self._policy = policy
        parts = urlsplit(policy.url)
        self.folder: Path | None = None
        if parts.scheme in {"", "file"}:
            path = unquote(parts.path) if parts.scheme else policy.url
            self.folder = Path(path).expanduser().absolute()
        self.url = self.folder.as_uri() if self.folder else policy.url.rstrip("/")
        self._store: Any = _open(policy, self.folder)
        self._threads = ThreadPoolExecutor(policy.threads, "uploads")

    def close(self) -> None:
        """Let go of its threads; what is being written is written."""
        self._threads.shutdown()

    def own(self, tenant: str, uri: str) -> OwnUpload | None:
        """The upload that a URI names, if it is this very tenant's and written exactly as it was given out."""
        path = uri[len(self.url) + 1 :] if uri.startswith(f"{self.url}/") else ""
        found = _OWN.fullmatch(path)
        return OwnUpload(path, found["sha256"]) if found and found["tenant"] == tenant else None

    def uri(self, path: str) -> str:
        """The URI of what is, or will be, at a path."""
        return f"{self.url}/{path}"

    async def put(self, path: str, image: Received) -> None:
        """Keep an image at a path of `address`, where it is written once, or of `direct`, where the last one counts.

        Raises ProblemError 503 `storage_unavailable`; to do it again is safe.
        """
        try:
            if self.folder:
                # Cheaper than obstore's own way of not blocking: three quarters of the processor time for a small file.
                await asyncio.get_running_loop().run_in_executor(self._threads, self._write, path, image.content)
            else:
                await self._send(path, image.content, _TYPES[image.checked.kind])
        except _ERRORS as error:
            raise _unavailable() from error

    async def exists(self, upload: OwnUpload) -> bool:
        """Whether it is there. Raises ProblemError 503 `storage_unavailable`."""
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                await self._store.head_async(upload.path)
        except _MISSING:
            return False
        except _ERRORS as error:
            raise _unavailable() from error
        return True

    async def read(self, upload: OwnUpload) -> AsyncIterator[bytes]:
        """Its bytes, piece by piece; none where it is not there. Raises ProblemError 503 `storage_unavailable`."""
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                found = await self._store.get_async(upload.path)
                async for piece in found.stream(min_chunk_size=_CHUNK_BYTES):
                    yield bytes(piece)
        except _MISSING:
            return
        except _ERRORS as error:
            raise _unavailable() from error

    async def sign(self, tenant: str, kind: Kind) -> tuple[str, str, dict[str, str]]:
        """A place for a client that writes by itself: its URI, a URL that takes one PUT or more until it expires, and headers to send.

        Only where the store is no folder. Raises ProblemError 503 `storage_unavailable`.
        """
        path = direct(tenant, kind)
        try:
            url = await obstore.sign_async(self._store, "PUT", path, timedelta(seconds=self._policy.signed_s))
        except _ERRORS as error:
            raise _unavailable() from error
        azure = {"x-ms-blob-type": "BlockBlob"} if self.url.startswith("az") else {}
        return f"{self.url}/{path}", url, {"Content-Type": _TYPES[kind], **azure}

    def _write(self, path: str, content: bytes | Path) -> None:
        """Into the folder: a hidden file first, then by its name, so that nobody ever sees half of it. Blocks."""
        if _is_direct(path):
            self._store.put(path, content)
        elif isinstance(content, bytes):
            with contextlib.suppress(AlreadyExistsError):
                self._store.put(path, content, mode="create")
        else:
            try:
                self._store.head(path)
            except _MISSING:
                self._store.put(path, content)

    async def _send(self, path: str, content: bytes | Path, content_type: str) -> None:
        async with asyncio.timeout(self._policy.timeout_s):
            try:
                await self._store.head_async(path)
            except _MISSING:
                await self._store.put_async(path, content, attributes={"Content-Type": content_type})


def address(tenant: str, sha256: str, kind: Kind) -> str:
    """The path of an image by its content."""
    return f"{tenant}/{sha256[:2]}/{sha256}.{kind}"


def direct(tenant: str, kind: Kind) -> str:
    """A fresh path for a client that says nothing of the content."""
    return f"{tenant}/{_DIRECT}/{uuid4().hex}.{kind}"


def _is_direct(path: str) -> bool:
    return path.split("/")[1] == _DIRECT


def _open(policy: UploadPolicy, folder: Path | None) -> Any:
    from_url, local = obstore.store.from_url, obstore.store.LocalStore
    try:
        if folder is not None:
            return local(folder, mkdir=True)
        return from_url(
            policy.url,
            config=dict(policy.options),
            client_options={
                "timeout": timedelta(seconds=2 * policy.timeout_s),  # ours comes first
                "allow_http": policy.options.get("endpoint", "").startswith("http://"),
            },
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=policy.timeout_s)},
        )
    except _ERRORS as error:
        raise ConfigurationError(f"uploads.url: cannot open {policy.url}: {error}") from error


def _unavailable() -> ProblemError:
    return ProblemError(503, "storage_unavailable", "the store of uploads does not answer", _RETRY_AFTER_S)
