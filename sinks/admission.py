"""Who is let in, and how often: browser origins, connections, rates."""

import ipaddress
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

from schemas.errors import ConfigurationError, SightstreamError
from sinks.notifier import NotifierPolicy


class RefusedError(SightstreamError):
    """Not let in; `status` is HTTP's, `code` a stable word for programs, `retry_after_s` when to come again, if ever."""

    def __init__(self, status: int, code: str, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


class TokenBucket:
    """At most `burst` at once and `per_s` in the long run."""

    def __init__(self, per_s: float, burst: float, now: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._now = per_s, burst, now
        self._tokens, self._at = burst, now()

    def take(self) -> bool:
        """Take one, if there is one."""
        at = self._now()
        self._tokens = min(self._burst, self._tokens + (at - self._at) * self._per_s)
        self._at = at
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Admission:
    """Counts connections by address against the policy's limits."""

    def __init__(self, policy: NotifierPolicy, now: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._arrivals = TokenBucket(policy.connects_per_s, max(1.0, policy.connects_per_s), now)
        self._addresses: Counter[str] = Counter()

    def greet(self) -> None:
        """Count an arrival. Raises RefusedError where too many come at once."""
        if not self._arrivals.take():
            raise RefusedError(503, "too_many_arrivals", "too many clients connect at once", 1)

    def enter(self, address: str) -> bool:
        """Count a connection, if there is room for it; `leave` gives the room back."""
        if self._addresses.total() >= self._policy.connections:
            return False
        if self._addresses[address] >= self._policy.connections_per_address:
            return False
        self._addresses[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Undo an `enter` that succeeded."""
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]


def check_origin(origin: str | None, host: str, allowed: tuple[str, ...]) -> None:
    """Let in what is no browser (no `Origin`), allowed origins (exact match), and this server's own pages on loopback.

    Elsewhere a matching `Host` proves nothing: a foreign name may be made to resolve here. Raises RefusedError.
    """
    if origin is None or origin in allowed:
        return
    parts = urlsplit(origin)
    if parts.netloc == host and is_loopback(parts.hostname or ""):
        return
    raise RefusedError(403, "origin_forbidden", "this origin is not in the notifier's list")


def check_bind(host: str, *, public: bool) -> None:
    """Refuse to serve without authentication beyond this machine, unless the operator said `public`. Call before binding."""
    if not is_loopback(host) and not public:
        raise ConfigurationError(
            f"nothing here authenticates callers, and {host or 'an empty host'} is open to others: "
            "set http.host to 127.0.0.1, or http.public if something in front of it keeps strangers out"
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this very machine and nothing else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
