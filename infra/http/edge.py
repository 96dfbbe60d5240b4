"""Builds the edge of a gateway from its settings: one call to wire it, one part to run, one question to ask."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from infra.http.audit import Audit
from infra.http.audit_log import AuditLog
from infra.http.identity import Credentials, Redeem
from infra.http.jwks import Jwks
from infra.http.limits import Backlog
from infra.http.stack import EdgeParts, check_open, protect
from infra.http.tokens import Tokens
from infra.key_follower import KeyFollower
from infra.runtime import Run, threaded
from infra.settings import Settings
from infra.telemetry import Health
from producers.publisher import Publisher
from schemas.identity import Principal


@dataclass(frozen=True, slots=True)
class Edge:
    """`mount` goes last into `infra.server.build`. `run`: a part of the process, None in open mode. `stands`: for `sinks.access.Access`."""

    mount: Callable[[web.Application], None]
    run: Run | None
    stands: Callable[[Principal], bool]


def open_edge(
    settings: Settings,
    publisher: Publisher,
    health: Health,
    *,
    backlog: Backlog | None = None,
    redeem: Redeem | None = None,
) -> Edge:
    """The edge of one gateway process: ready once the API keys were read. Raises ConfigurationError where it would let strangers in."""
    identity = settings.identity
    check_open(identity, settings.http.host)
    audit = None if identity.audit == "off" else Audit(AuditLog(publisher), identity.audit, identity.audit_buffer)
    if identity.mode == "open":
        parts = EdgeParts(identity=identity, limits=settings.limits, backlog=backlog, audit=audit)
        return Edge(lambda app: protect(app, parts), None, lambda _: True)
    keys = KeyFollower(settings.connection, publisher.codec, settings.topics.keys, f"{settings.kafka.group}.keys")
    health.must_be_ready("keys", keys.complaint)
    credentials = Credentials(
        keys=keys.ring,
        keys_age_s=lambda: keys.age_s,
        keys_stale_s=identity.keys_stale_s,
        tokens=Tokens(identity.jwt, Jwks(identity.jwt)) if identity.jwt.jwks_url else None,
        redeem=redeem,
    )
    parts = EdgeParts(identity=identity, limits=settings.limits, credentials=credentials, backlog=backlog, audit=audit)
    return Edge(
        lambda app: protect(app, parts),
        threaded(keys.run, "keys"),
        lambda principal: keys.ring.still_allows(principal, datetime.now(UTC)),
    )
