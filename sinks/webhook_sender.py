"""One POST to a receiver whom nobody vouches for: bounded in time, to public addresses alone, without redirects, its answer unread."""

import asyncio
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from schemas.addresses import REFUSAL, RefusedAddressError, guarded_socket_factory
from sinks.webhook_policy import WebhookPolicy

_HEADERS = {"Content-Type": "application/json", "User-Agent": "sightstream-webhooks", "Accept-Encoding": "identity"}
_GONE = 410
_LONGEST_RETRY_AFTER_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a POST. `error`: a stable code, None where it was accepted; `final`: no use to try again.

    `callback_forbidden` (it leads where it must not), `timeout`, `unreachable`, `redirected`, `gone` (410), `refused` (any other status).
    """

    status: int | None = None
    error: str | None = None
    retry_after_s: float = 0.0
    final: bool = False


class Sender:
    """Posts webhooks; an async context manager. Sends no cookies or credentials, uses no proxy, keeps nothing of what is answered."""

    def __init__(self, policy: WebhookPolicy) -> None:
        self._policy = policy
        self._schemes = policy.schemes

    async def __aenter__(self) -> Self:
        self._resolver = _Resolver(2 * self._policy.in_flight)
        connector = aiohttp.TCPConnector(
            socket_factory=guarded_socket_factory(self._policy.ports, self._policy.extra_networks),
            resolver=self._resolver,
            use_dns_cache=False,
            limit=0,  # whoever calls bounds them
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._policy.timeout_s),
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
        await self._resolver.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send it once. Never raises for what the receiver does, and never takes much longer than `timeout_s`."""
        target = self._allowed(url)
        if target is None:
            return Answer(error="callback_forbidden", final=True)
        try:
            # Not answered within the session's timeout includes names that nobody resolves.
            async with self._session.post(target, data=body, headers=headers, allow_redirects=False) as response:
                return _judge(response)
        except TimeoutError:
            return Answer(error="timeout")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(error="callback_forbidden" if _is_refusal(error) else "unreachable")

    def _allowed(self, url: str) -> URL | None:
        try:
            target = URL(url)
            fine = (
                target.scheme in self._schemes
                and bool(target.host)
                and target.port in self._policy.ports
                and target.user is None
                and target.password is None
            )
        except ValueError:
            return None
        return target.with_fragment(None) if fine else None


class _Resolver(AbstractResolver):
    """Resolves names in threads of its own: whose name server hangs takes none from the process's other work."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, "webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of a name. Raises OSError."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Take no more; threads that wait for a name server end when it does."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _judge(response: aiohttp.ClientResponse) -> Answer:
    status = response.status
    if 200 <= status < 300:
        return Answer(status)
    if status == _GONE:
        return Answer(status, "gone", final=True)
    after = response.headers.get("Retry-After", "")
    after_s = min(float(after), _LONGEST_RETRY_AFTER_S) if after.isascii() and after.isdigit() else 0.0
    return Answer(status, "redirected" if 300 <= status < 400 else "refused", after_s)


def _is_refusal(error: Exception) -> bool:
    """Whether an address was refused; where a name has several, their errors arrive joined into one text."""
    cause = getattr(error, "os_error", error)
    return isinstance(cause, RefusedAddressError) or (isinstance(cause, OSError) and REFUSAL in str(cause))
