"""Knobs of the edge: who is let in, and how much each tenant may ask for. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from typing import Literal
from urllib.parse import urlsplit

from schemas.identity import is_tenant

_ASYMMETRIC = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA"}
)
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPolicy:
    """JWTs of an issuer (RFC 8725); none are taken while `jwks_url` is not set.

    `strict_audience`: a token for several audiences, each of which could use it here, is refused. `types`: what `typ` may say.
    `tenant_claim`: where the tenant stands; empty: every token is of tenant `default`. `scope_claim`: a list, or text with spaces; of its
    words those count that begin with `scope_prefix` and go on with a scope's name. Keys are fetched every `refresh_s`, for an unknown `kid`
    at most once per `cooldown_s`, and still used for `stale_s` while the issuer does not answer.
    """

    jwks_url: str | None = None
    issuer: str | None = None
    audience: str | None = None
    strict_audience: bool = True
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    types: tuple[str, ...] = ("at+jwt",)
    tenant_claim: str = "tenant"
    scope_claim: str = "scope"
    scope_prefix: str = ""
    leeway_s: float = 30.0
    refresh_s: float = 300.0
    cooldown_s: float = 30.0
    stale_s: float = 3600.0
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if self.jwks_url is None:
            return
        if not self.issuer or not self.audience:
            raise ValueError(
                "jwks_url needs issuer and audience too: a token for somebody else must not open this door"
            )
        if wrong := set(self.algorithms) - _ASYMMETRIC:
            raise ValueError(
                f"algorithms may not hold {min(wrong)}: only asymmetric ones can be verified with public keys"
            )
        parts = urlsplit(self.jwks_url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise ValueError("jwks_url must be https")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityPolicy:
    """Who is let in.

    `mode`: `open` asks nobody and is possible on loopback alone; `required` wants an API key or a JWT. `origins`: browser origins let in
    beside this server's own pages, such as `https://app.example.com`. `trusted_proxies`: networks whose `X-Forwarded-For` and
    `X-Forwarded-Proto` are believed. `keys_stale_s`: for how long API keys count while Kafka does not say whether one was revoked.
    `audit`: which requests are recorded on the topic `audit`, beside refused ones; `audit_buffer`: how many may wait for Kafka.
    """

    mode: Literal["open", "required"] = "open"
    origins: tuple[str, ...] = ()
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    keys_stale_s: float = 600.0
    audit: Literal["off", "writes", "all"] = "writes"
    audit_buffer: int = 10_000
    jwt: TokenPolicy = field(default_factory=TokenPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What one tenant may ask of the gateways; None: as much as it likes. Each period begins with the first use.

    `in_flight`: requests at once in each gateway, streams not counted; the others hold for all gateways together where they share a Redis.
    `bytes_*` count bodies.
    """

    requests_per_s: int | None = 5_000
    in_flight: int | None = 512
    bytes_per_minute: int | None = None
    bytes_per_day: int | None = None
    images_per_day: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPolicy:
    """What is refused for being too much.

    `every_tenant`: what each may; `tenants`: what is other for one (`[limits.tenants.acme] images_per_day = 1000`).
    `redis_url`: where gateways count together; without it, or while it does not answer, each counts alone. `in_flight`: requests of all
    tenants at once in this process. `max_lag_*`: records of a lane that may wait before no more are taken (0: any number). `body_bytes`:
    of one request. A body must bring `body_bytes_per_s` over each `body_window_s`, and a client take something of its answer within
    `stall_s`; `idle_s` is for a request's headers, and for a connection without requests.
    """

    every_tenant: Allowance = field(default_factory=Allowance)
    tenants: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    redis_url: str | None = field(default=None, repr=False)
    redis_timeout_s: float = 0.25
    redis_pause_s: float = 5.0
    in_flight: int = 2_000
    max_lag_online: int = 50_000
    max_lag_bulk: int = 5_000_000
    retry_s: float = 5.0
    body_bytes: int = 4 << 30
    body_bytes_per_s: int = 1_024
    body_window_s: float = 15.0
    stall_s: float = 60.0
    idle_s: float = 75.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "tenants", {tenant: _numbers(tenant, own) for tenant, own in self.tenants.items()})

    def of(self, tenant: str) -> Allowance:
        """What this tenant may."""
        return _allowance(self.every_tenant, self.tenants.get(tenant))


def _allowance(every: Allowance, own: Mapping[str, int] | None) -> Allowance:
    if own is None:
        return every
    return Allowance(**{item.name: own.get(item.name, getattr(every, item.name)) for item in fields(Allowance)})


def _numbers(tenant: str, own: Mapping[str, object]) -> dict[str, int]:
    """A tenant's own limits as numbers; the command line gives text. Raises ValueError."""
    known = {item.name for item in fields(Allowance)}
    if not is_tenant(tenant):
        raise ValueError(f"tenants: {tenant!r} is no tenant's name")
    if unknown := own.keys() - known:
        raise ValueError(f"tenants.{tenant}: there is no {min(unknown)!r}; known: {', '.join(sorted(known))}")
    if wrong := [name for name, value in own.items() if not str(value).isdecimal()]:
        raise ValueError(f"tenants.{tenant}.{min(wrong)} must be a whole number")
    return {name: int(str(value)) for name, value in own.items()}
