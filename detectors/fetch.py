"""Images from web servers that nobody vouches for: bounded in time, bytes and redirects, and from public addresses only."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from detectors.hosts import Hosts
from detectors.policy import ImagePolicy
from schemas.addresses import REFUSAL, RefusedAddressError, guarded_socket_factory
from schemas.errors import BusyError, Reason, RejectedError

_MAX_URL_LENGTH = 2048
_CHUNK_BYTES = 64 * 1024
_RETRY_AFTER_S = 5.0
_MAX_RETRY_AFTER_S = 3600.0
_HEADERS = {
    "Accept": "image/jpeg, image/png, image/webp",
    "Accept-Encoding": "identity",
    "User-Agent": "sightstream",
}
_REDIRECTS = {301, 302, 303, 307, 308}
_STATUS_REASONS = {
    401: Reason.IMAGE_FORBIDDEN,
    403: Reason.IMAGE_FORBIDDEN,
    404: Reason.IMAGE_NOT_FOUND,
    410: Reason.IMAGE_NOT_FOUND,
    451: Reason.IMAGE_FORBIDDEN,
}
_TRANSIENT = {408, 425, 429}


class HttpFetcher:
    """Fetches http and https references; an async context manager. Sends no cookies, credentials or referrer, uses no proxy."""

    def __init__(self, policy: ImagePolicy, hosts: Hosts, now: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._hosts = hosts
        self._now = now

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            socket_factory=guarded_socket_factory(self._policy.ports, self._policy.extra_networks),
            use_dns_cache=False,
            limit=0,  # `Hosts` bounds transfers, in all and by host
        )
        timeouts = self._policy.timeouts
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=timeouts.total_s, sock_connect=timeouts.connect_s, sock_read=timeouts.read_s
            ),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=_HEADERS,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def fetch(self, uri: str) -> bytes:
        """The bytes at a URL, at most `max_bytes` of them.

        Raises RejectedError for what will not get better (forbidden address, 404, too large ...) and BusyError for what may.
        """
        url = parse_url(uri, self._policy.ports)
        for _ in range(self._policy.max_redirects + 1):
            async with self._hosts.turn(url.host or ""):
                answer = await self._request(url)
            if isinstance(answer, bytes):
                return answer
            url = answer
        raise RejectedError(Reason.FETCH_FAILED, f"more than {self._policy.max_redirects} redirects")

    async def _request(self, url: URL) -> bytes | URL:
        """The body, or where the server says that it is."""
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status in _REDIRECTS:
                    return self._follow(url, response.headers.get("Location", ""))
                _raise_for_status(response)
                return await self._read(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise map_http_error(error) from error

    def _follow(self, url: URL, location: str) -> URL:
        if not location:
            raise RejectedError(Reason.FETCH_FAILED, "a redirect without a destination")
        target = parse_url(str(url.join(URL(location))), self._policy.ports)
        if url.scheme == "https" and target.scheme == "http":
            raise RejectedError(Reason.URI_FORBIDDEN, "a redirect from https to http")
        return target

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        self._check_size(response.content_length or 0)
        content = bytearray()
        started = self._now()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            content += chunk
            self._check_size(len(content))
            self._check_pace(len(content), self._now() - started)
        return bytes(content)

    def _check_size(self, size: int) -> None:
        if size > self._policy.max_bytes:
            raise RejectedError(Reason.IMAGE_TOO_LARGE, f"more than {self._policy.max_bytes} bytes")

    def _check_pace(self, received: int, elapsed_s: float) -> None:
        timeouts = self._policy.timeouts
        if elapsed_s > timeouts.grace_s and received < elapsed_s * timeouts.min_bytes_per_s:
            raise BusyError(Reason.FETCH_TIMEOUT, "the host sends too slowly", _RETRY_AFTER_S)


def parse_url(uri: str, ports: frozenset[int]) -> URL:
    """A URL that may be asked for. Raises RejectedError for one that is malformed or has credentials or a foreign port."""
    if len(uri) > _MAX_URL_LENGTH:
        raise RejectedError(Reason.URI_FORBIDDEN, f"longer than {_MAX_URL_LENGTH} characters")
    try:
        url = URL(uri)
        port = url.port
    except ValueError as error:
        raise RejectedError(Reason.URI_UNSUPPORTED, "not a URL") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise RejectedError(Reason.URI_UNSUPPORTED, "not an http or https URL of a host")
    if url.user is not None or url.password is not None:
        raise RejectedError(Reason.URI_FORBIDDEN, "credentials in the URL")
    if port not in ports:
        raise RejectedError(Reason.URI_FORBIDDEN, "the port is not allowed")
    return url


def map_http_error(error: Exception) -> RejectedError | BusyError:
    """What to do about an error of the transfer; says nothing of ports or bodies, which would let a caller probe with it."""
    if isinstance(error, aiohttp.InvalidURL):
        return RejectedError(Reason.URI_UNSUPPORTED, "not a URL that can be fetched")
    if _is_refusal(error):
        return RejectedError(Reason.URI_FORBIDDEN, "the host's address is not allowed")
    if isinstance(error, TimeoutError):
        return BusyError(Reason.FETCH_TIMEOUT, "the host does not answer in time", _RETRY_AFTER_S)
    return BusyError(Reason.FETCH_FAILED, f"the transfer failed ({type(error).__name__})", _RETRY_AFTER_S)


def _is_refusal(error: Exception) -> bool:
    """Whether an address was refused; where a name has several, their errors arrive joined into one text."""
    cause = getattr(error, "os_error", error)
    return isinstance(cause, RefusedAddressError) or (isinstance(cause, OSError) and REFUSAL in str(cause))


def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status in {200, 203, 204}:
        return
    if status >= 500 or status in _TRANSIENT:
        retry_after_s = _parse_retry_after(response.headers.get("Retry-After", ""))
        raise BusyError(Reason.FETCH_FAILED, f"the host answers {status}", retry_after_s)
    raise RejectedError(_STATUS_REASONS.get(status, Reason.FETCH_FAILED), f"the host answers {status}")


def _parse_retry_after(text: str) -> float:
    """Seconds of a `Retry-After` header; its date form is not worth a clock that may differ from ours."""
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() else _RETRY_AFTER_S
