"""The knobs of webhooks, apart from them so that reading settings loads no HTTP client."""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

_LEAST_SECRET = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookPolicy:
    """How callers are told that a batch is done.

    `secret`: of it each tenant's own signing secret is made; without one nothing is sent. `former_secret`: signs beside it while receivers
    change over. `ports`, `insecure` (http too) and `extra_networks` (addresses that are not public) say where a callback may lead.
    A delivery has `attempts`, the second after about `first_retry_s`, each pause `growth` times the one before, up to `longest_retry_s`.
    What nobody began to deliver within `begin_within_s` is given up: a store made anew must not call for batches of last month.
    `inline_images`: so many images of the batch are in the message. At most `in_flight` at once in a process, `per_tenant` of them for one
    tenant and `per_receiver` for one of its receivers.
    """

    secret: str | None = field(default=None, repr=False)
    former_secret: str | None = field(default=None, repr=False)
    ports: frozenset[int] = frozenset({443, 8443})
    insecure: bool = False
    extra_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    timeout_s: float = 10.0
    attempts: int = 10
    first_retry_s: float = 10.0
    growth: float = 4.0
    longest_retry_s: float = 6 * 3600.0
    inline_images: int = 10
    begin_within_s: float = 48 * 3600.0
    in_flight: int = 128
    per_tenant: int = 16
    per_receiver: int = 4
    poll_s: float = 1.0

    @property
    def schemes(self) -> frozenset[str]:
        """Of URLs that may be called."""
        return frozenset({"https", "http"} if self.insecure else {"https"})

    def __post_init__(self) -> None:
        for secret in (self.secret, self.former_secret):
            if secret is not None and len(secret) < _LEAST_SECRET:
                raise ValueError(
                    f"secrets need at least {_LEAST_SECRET} characters; `openssl rand -base64 32` makes one"
                )
        if self.attempts < 1 or self.in_flight < 1 or self.per_tenant < 1 or self.per_receiver < 1:
            raise ValueError("attempts, in_flight, per_tenant and per_receiver must be at least 1")
