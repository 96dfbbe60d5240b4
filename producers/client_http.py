"""Requests to a gateway that are tried again until they are answered: full jitter, `Retry-After`, a bound in time."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self, TypeVar

import aiohttp

from producers.client_batches import parse_problem
from schemas.errors import ConfigurationError, DeliveryError, SightstreamError
from schemas.problems import CONTENT_TYPE as PROBLEM
from schemas.problems import ProblemError

Parsed = TypeVar("Parsed")

_AGAIN = frozenset({408, 429, 502, 503, 504})
_AGAIN_CODES = frozenset({"idempotency_in_flight"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPolicy:
    """Knobs of a client.

    `retry_for_s`: how long one request is tried again in all. The wait before the n-th time is drawn from 0 to `backoff_s` doubled n times,
    at most `backoff_cap_s`, and comes on top of what the server asks for. `answer_s`: how long an answer may take beyond what it was asked
    to wait. `concurrency`: requests at once where there are many to do.
    """

    retry_for_s: float = 120.0
    backoff_s: float = 0.25
    backoff_cap_s: float = 20.0
    connect_s: float = 10.0
    answer_s: float = 60.0
    concurrency: int = 16


class UnreachableError(DeliveryError):
    """No answer in time. Whether the request was taken is unknown; with the same idempotency key it is safe to send it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to send. `body` makes it anew for each try. `wait_s`: how long the server was asked to hold the answer.

    `path` is one of the gateway's, or an absolute URL elsewhere, which is not shown the credential.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Any] | None = None
    wait_s: float = 0.0

    @classmethod
    def of_json(cls, path: str, members: Mapping[str, Any]) -> Self:
        """A POST of a JSON object."""
        body = json.dumps(members).encode()
        return cls(method="POST", path=path, headers={"Content-Type": "application/json"}, body=lambda: body)

    def waiting(self, seconds: float) -> Self:
        """The same, held by the server for so long."""
        if seconds <= 0:
            return self
        return replace(self, query=(*self.query, ("wait", f"{seconds:.3f}")), wait_s=seconds)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole: below 400."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def parse(self, read: Callable[[Any], Parsed]) -> Parsed:
        """Its JSON, as `read` understands it. Raises ConfigurationError where it is none of a gateway's."""
        try:
            return read(json.loads(self.body))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"the answer is not one of a Sightstream gateway: {error!r}") from error


class Connection:
    """Speaks to one gateway. Every request may be sent more than once, so give it only such as may be."""

    def __init__(
        self,
        server: str,
        token: str,
        policy: ClientPolicy,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if not server.startswith(("http://", "https://")):
            raise ConfigurationError(f"{server}: a server is http:// or https://")
        self.policy = policy
        self._server = server.rstrip("/")
        self._credential = {"Authorization": f"Bearer {token}"} if token else {}
        self._sleep, self._now = sleep, now
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, request: Request, within_s: float | None = None) -> Answer:
        """The answer, once there is one that is no request to come again.

        It is tried again for `within_s`, by default the policy's `retry_for_s`. Raises ProblemError for what the server refuses, and for
        what it still postpones when time is over; UnreachableError; and what making the body raises.
        """
        deadline, tries = self._now() + (self.policy.retry_for_s if within_s is None else within_s), 0
        while True:
            failure: ProblemError | UnreachableError
            try:
                return await self._try(request)
            except ProblemError as problem:
                if problem.status not in _AGAIN and problem.code not in _AGAIN_CODES:
                    raise
                failure, pause_s = problem, problem.retry_after_s or 0.0
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                if isinstance(error.__cause__, SightstreamError):
                    raise error.__cause__ from None  # the body could not be made, and the connection ended over that
                failure, pause_s = UnreachableError(f"{self._server} does not answer: {_say(error)}"), 0.0
                failure.__cause__ = error
            pause_s += self.jitter_s(tries)
            tries += 1
            if self._now() + pause_s > deadline:
                raise failure
            await self._sleep(pause_s)

    async def listen(self, path: str) -> aiohttp.ClientWebSocketResponse:
        """A websocket, tried once. Raises aiohttp.ClientError, OSError, TimeoutError."""
        timeout = aiohttp.ClientWSTimeout(ws_close=5.0)
        async with asyncio.timeout(self.policy.connect_s):
            return await self._open().ws_connect(
                self._server + path, headers=self._credential, heartbeat=30, timeout=timeout, max_msg_size=0
            )

    async def pause(self, seconds: float) -> None:
        """Wait, by the clock that this connection was given."""
        await self._sleep(seconds)

    def jitter_s(self, tries: int) -> float:
        """Full jitter: anything up to the bound, so that clients that failed together do not come back together."""
        bound = min(self.policy.backoff_cap_s, self.policy.backoff_s * 2 ** min(tries, 30))
        return random.uniform(0, bound)  # noqa: S311 - jitter

    async def _try(self, request: Request) -> Answer:
        ours = request.path.startswith("/")
        timeout = aiohttp.ClientTimeout(
            total=None, connect=self.policy.connect_s, sock_read=self.policy.answer_s + request.wait_s
        )
        async with self._open().request(
            request.method,
            self._server + request.path if ours else request.path,
            params=list(request.query),
            headers={**(self._credential if ours else {}), **request.headers},
            data=None if request.body is None else request.body(),
            allow_redirects=False,  # a credential goes where it was meant to go
            timeout=timeout,
        ) as response:
            body = await response.read()
            if response.status >= 300 and response.status != 304:
                raise _problem(response, body)
            return Answer(response.status, response.headers, body)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session


def _problem(response: aiohttp.ClientResponse, body: bytes) -> ProblemError:
    """What the server said, or as much as can be told of an answer that something in between gave."""
    problem = None
    if response.content_type == PROBLEM:
        with suppress(KeyError, TypeError, ValueError):
            problem = parse_problem(json.loads(body))
    if problem is None:
        problem = ProblemError(
            response.status, "unknown", f"{response.status} {response.reason} from {response.url.origin()}"
        )
    problem.retry_after_s = _retry_after_s(response.headers.get("Retry-After"))
    return problem


def _retry_after_s(text: str | None) -> float | None:
    """Seconds of a Retry-After, which is a number or a date; None where it cannot be read."""
    if text is None:
        return None
    try:
        return max(0.0, float(text)) if text.strip().isdigit() else _seconds_until(parsedate_to_datetime(text))
    except ValueError:
        return None


def _seconds_until(moment: datetime) -> float:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def _say(error: Exception) -> str:
    return str(error) or type(error).__name__
