"""From references to pixels: every image of a batch gets an outcome of its own, and none can fail the others."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias
from urllib.parse import urlsplit

from detectors.base import Image
from detectors.cores import usable_cores
from detectors.decoder_process import Limits
from detectors.decoders import Decoders
from detectors.fetch import HttpFetcher
from detectors.files import FileReader
from detectors.hosts import Hosts
from detectors.metrics import FETCH_DURATION, IMAGE_BYTES
from detectors.policy import ImagePolicy
from detectors.stores import SCHEMES as STORE_SCHEMES
from detectors.stores import ObjectFetcher
from schemas.errors import BusyError, FatalError, Reason, RejectedError

if TYPE_CHECKING:
    from detectors.device_decode import DeviceDecoder

__all__ = ["ImageLoader", "ImageOutcome", "ImagePolicy", "ImageRequest"]

log = logging.getLogger(__name__)

ImageOutcome: TypeAlias = Image | RejectedError | BusyError


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """An image that is wanted: its URI and, if known, the sha256 (hex) that its bytes must have."""

    uri: str
    sha256: str | None = None


class ImageLoader:
    """Fetches, verifies and decodes images; an async context manager, bound to the event loop that entered it.

    References: `file:` under the allowed roots, `http:` and `https:`, and `s3:`, `gs:`, `az:` of the allowed buckets.
    `canvas`: (width, height) of the largest input of the models that will see the images: what is much larger may be decoded reduced.
    """

    def __init__(self, policy: ImagePolicy, canvas: tuple[int, int] | None = None) -> None:
        self._policy = policy
        self._canvas = canvas
        self._files = FileReader(policy.roots, policy.max_bytes)

    async def __aenter__(self) -> Self:
        """Open the clients, start the decoders and wait for the first.

        Raises ConfigurationError for an object store or a device that cannot be, FatalError where decoders do not start.
        """
        hosts = Hosts(self._policy)
        objects = ObjectFetcher(self._policy, hosts)
        count = self._policy.decoders or max(2, usable_cores() // 2)
        self._on_device = await asyncio.to_thread(_open_device_decoder, self._policy)
        async with AsyncExitStack() as opened:
            self._decoders = opened.enter_context(Decoders(count, self._limits()))
            await asyncio.to_thread(self._decoders.await_one)
            self._pool = ThreadPoolExecutor(count, "decode")
            opened.push_async_callback(asyncio.to_thread, self._pool.shutdown, cancel_futures=True)
            web = await opened.enter_async_context(HttpFetcher(self._policy, hosts))
            self._resources = opened.pop_all()
        self._remote: dict[str, Callable[[str], Awaitable[bytes]]] = {
            "http": web.fetch,
            "https": web.fetch,
            **dict.fromkeys(STORE_SCHEMES, objects.fetch),
        }
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    def _limits(self) -> Limits:
        policy = self._policy
        return Limits(
            max_pixels=policy.max_pixels,
            canvas=self._canvas,
            seconds=policy.decode_timeout_s,
            memory_bytes=policy.decode_memory_bytes,
        )

    async def load(self, requests: Sequence[ImageRequest]) -> list[ImageOutcome]:
        """One outcome for each request, in order: the image, or why there is none. Raises for none of them.

        Raises FatalError where no image can be decoded here any more.
        """
        if len(requests) == 1:  # an image that is alone is waited for: no task, and no turn of the loop, for it
            return [await self._settle(requests[0])]
        return await asyncio.gather(*(self._settle(request) for request in requests))

    async def _settle(self, request: ImageRequest) -> ImageOutcome:
        try:
            return await self._load(request)
        except (RejectedError, BusyError) as error:
            return _without_frames(error)
        except FatalError:
            raise
        except MemoryError:
            return BusyError(Reason.FETCH_FAILED, "not enough memory for this image now")
        except Exception:
            # Not a failure that we know. The image is given up rather than the partition, and the trace says what to mend.
            log.exception("loading an image failed unexpectedly", extra={"image": _name_of(request.uri)})
            return RejectedError(Reason.FETCH_FAILED, "loading the image failed unexpectedly")

    async def _load(self, request: ImageRequest) -> Image:
        scheme = request.uri.partition(":")[0].lower() if ":" in request.uri else ""
        loop = asyncio.get_running_loop()
        if scheme == "file":
            return await loop.run_in_executor(self._pool, self._read_and_decode, request)
        fetch = self._remote.get(scheme)
        if fetch is None:
            raise RejectedError(Reason.URI_UNSUPPORTED, "references are file, http, https, s3, gs or az URIs")
        started = time.perf_counter()
        try:
            content = await fetch(request.uri)
        except (RejectedError, BusyError) as error:
            _report_fetch(started, error.reason)
            raise
        fetch_ms = _report_fetch(started, "ok", len(content))
        return await loop.run_in_executor(self._pool, self._verify_and_decode, content, request.sha256, fetch_ms)

    def _read_and_decode(self, request: ImageRequest) -> Image:
        """Both in one hop to a thread: this is the hot path."""
        started = time.perf_counter()
        try:
            content = self._files.read(request.uri)
        except (RejectedError, BusyError) as error:
            _report_fetch(started, error.reason)
            raise
        return self._verify_and_decode(content, request.sha256, _report_fetch(started, "ok", len(content)))

    def _verify_and_decode(self, content: bytes, sha256: str | None, fetch_ms: float) -> Image:
        started = time.perf_counter()
        digest = hashlib.sha256(content).hexdigest()
        if sha256 and digest != sha256.lower():
            raise RejectedError(Reason.IMAGE_HASH_MISMATCH, "the bytes do not have the sha256 of the reference")
        if self._on_device and (image := self._on_device.decode(content)):
            return image.told(fetch_ms, (time.perf_counter() - started) * 1e3, digest)
        decoded = self._decoders.decode(content)
        return Image(decoded.pixels, fetch_ms, (time.perf_counter() - started) * 1e3, decoded.frame, digest)


def _open_device_decoder(policy: ImagePolicy) -> "DeviceDecoder | None":
    if policy.decode_on == "host":
        return None
    # Only now: it brings torch.
    from detectors.device_decode import DeviceDecoder  # noqa: PLC0415

    return DeviceDecoder(policy.decode_on, policy.max_pixels)


def _report_fetch(started: float, outcome: str, size: int | None = None) -> float:
    """Milliseconds since `started`, also to Prometheus."""
    elapsed_s = time.perf_counter() - started
    FETCH_DURATION.labels(outcome=outcome).observe(elapsed_s)
    if size is not None:
        IMAGE_BYTES.observe(size)
    return elapsed_s * 1e3


def _name_of(uri: str) -> str:
    """Enough to find an image by, without what may be secret: a file's path; of others the host, and a hash of the whole."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return "no URI"
    if parts.scheme == "file":
        return parts.path
    return f"{parts.scheme}://{parts.hostname or ''} sha256:{hashlib.sha256(uri.encode(errors='replace')).hexdigest()[:16]}"


def _without_frames(error: RejectedError | BusyError) -> RejectedError | BusyError:
    """The error without the frames that it passed through, which would keep the image's bytes alive as long as it lives."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
