"""Records of the control topics: what callers, workers and operators say beside images and results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from schemas.records import EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Images that were submitted together. Topic `batches`, compacted: the last record of an id counts.

    `images`: how many belong to it, None while they are still being submitted. `callback`: whom to tell when all have an outcome.
    """

    id: str
    tenant: str = "default"
    images: int | None = None
    callback: str | None = None
    created_at: datetime = EPOCH
    closed_at: datetime | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A tenant wants an image and its results forgotten. Topic `deletions`; outlives what it deletes, so that no replay brings it back."""

    image_id: str
    tenant: str = "default"
    deleted_at: datetime = EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A credential of a tenant. Topic `keys`, compacted. The secret itself is nowhere: `secret_sha256` is the hex digest of it.

    `scopes` are `schemas.identity.Scope`s. It counts from `created_at` until `expires_at` or `revoked_at`, whichever comes first.
    """

    id: str
    tenant: str = "default"
    name: str = ""
    secret_sha256: str = ""
    scopes: tuple[str, ...] = ()
    created_at: datetime = EPOCH
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProgress:
    """How far a worker has taken a partition of an images topic. Topic `progress`, compacted.

    Records below `taken` are being processed or done. It may go back when another worker takes the partition over.
    """

    topic: str
    partition: int = 0
    taken: int = 0
    group: str = ""
    at: datetime = EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """Who did what. Topic `audit`. `subject`: the key's id or the token's subject; `status`: HTTP's; `target`: an id, never contents."""

    id: str
    at: datetime = EPOCH
    tenant: str = ""
    subject: str = ""
    action: str = ""
    target: str = ""
    status: int = 0
    address: str = ""
    request_id: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
