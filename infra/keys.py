"""API keys as text.

A key is `sightstream_<id>_<secret><check>`: the id (16 characters) finds it, the secret (43 characters, 256 random bits) proves it, and
the check (8 characters, CRC-32 in hex) tells a mistyped key, and a scanner for leaked ones, what it is. Only the SHA-256 of the secret is
kept: with that many random bits a slow hash would protect nothing.
"""

import hashlib
import re
import secrets
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from schemas.control import ApiKey
from schemas.errors import ConfigurationError
from schemas.identity import Scope, is_tenant

_PREFIX = "sightstream_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_KEY = re.compile(rf"{_PREFIX}([0-9a-z]{{16}})_([0-9A-Za-z]{{43}})([0-9a-f]{{8}})")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: the record for the log, and the text for its owner, which is nowhere else."""

    record: ApiKey
    text: str


def make_key(tenant: str, scopes: Iterable[str], name: str, now: datetime, expires_at: datetime | None) -> NewKey:
    """A fresh key. Raises ConfigurationError for a tenant that may not be called so, no or an unknown scope, or an end that has passed."""
    if not is_tenant(tenant):
        raise ConfigurationError(f"{tenant!r} is no tenant's name: 1 to 64 letters, digits, _ and -")
    granted = tuple(sorted(set(scopes)))
    if not granted or not set(granted) <= {scope.value for scope in Scope}:
        raise ConfigurationError(f"a key needs scopes, out of {', '.join(Scope)}")
    if expires_at is not None and expires_at <= now:
        raise ConfigurationError("the key would have expired before it was made")
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(16))
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(43))
    record = ApiKey(
        id=key_id,
        tenant=tenant,
        name=name,
        secret_sha256=_digest(secret),
        scopes=granted,
        created_at=now,
        expires_at=expires_at,
    )
    body = f"{_PREFIX}{key_id}_{secret}"
    return NewKey(record, f"{body}{_check(body)}")


def looks_like_key(text: str) -> bool:
    """Whether this is meant to be an API key rather than a token."""
    return text.startswith(_PREFIX)


def parse_key(text: str) -> tuple[str, str] | None:
    """Id and SHA-256 (hex) of the secret, or None where this cannot be a key."""
    found = _KEY.fullmatch(text)
    if found is None or _check(text[:-8]) != found[3]:
        return None
    return found[1], _digest(found[2])


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _check(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
