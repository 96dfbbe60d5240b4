"""Who is let in, and how often: browser origins, connections, rates."""

import ipaddress
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from schemas.errors import ConfigurationError
from schemas.problems import ProblemError
from sinks.notifier import NotifierPolicy


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
    """Counts connections by address and by tenant against the policy's limits."""

    def __init__(self, policy: NotifierPolicy, now: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._arrivals = TokenBucket(policy.connects_per_s, max(1.0, policy.connects_per_s), now)
        self._addresses: Counter[str] = Counter()
        self._tenants: Counter[str] = Counter()

    def greet(self) -> None:
        """Count an arrival. Raises ProblemError where too many come at once."""
        if not self._arrivals.take():
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "too_many_arrivals", "too many clients connect at once", 1
            )

    def enter(self, address: str, tenant: str = "") -> bool:
        """Count a connection, if there is room for it; `leave` gives the room back. Nobody's tenant ('') has no limit of its own."""
        if self._addresses.total() >= self._policy.connections:
            return False
        if self._addresses[address] >= self._policy.connections_per_address:
            return False
        if tenant and self._tenants[tenant] >= self._policy.connections_per_tenant:
            return False
        self._addresses[address] += 1
        self._tenants[tenant] += 1
        return True

    def leave(self, address: str, tenant: str = "") -> None:
        """Undo an `enter` that succeeded."""
        for counts, name in ((self._addresses, address), (self._tenants, tenant)):
            counts[name] -= 1
            if not counts[name]:
                del counts[name]


def check_origin(origin: str | None, host: str, allowed: tuple[str, ...]) -> None:
    """Let in what is no browser (no `Origin`), allowed origins (exact match), and this server's own pages on loopback.

    Elsewhere a matching `Host` proves nothing: a foreign name may be made to resolve here. Raises ProblemError.
    """
    if origin is None or origin in allowed:
        return
    parts = urlsplit(origin)
    if parts.netloc == host and is_loopback(parts.hostname or ""):
        return
    raise ProblemError(HTTPStatus.FORBIDDEN, "origin_forbidden", "this origin is not in the notifier's list")


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
