"""Which API keys count: the topic `keys`, folded."""

import hmac
from dataclasses import replace
from datetime import datetime

from infra.keys import parse_key
from schemas.control import ApiKey
from schemas.identity import Principal, Scope

_SCOPES = frozenset(scope.value for scope in Scope)
_NO_DIGEST = "0" * 64


class KeyRing:
    """The keys as the log tells them, the newest record of each: a `streams.fold.Fold`. One thread folds, any may ask."""

    record = ApiKey

    def __init__(self) -> None:
        self._keys: dict[str, ApiKey] = {}

    def fold(self, key: ApiKey) -> None:
        """Take what the log says of a key."""
        self._keys[key.id] = merged(self._keys.get(key.id), key)

    def put(self, _key: str, record: ApiKey) -> None:
        """`fold`, as the follower of the topic calls it."""
        self.fold(record)

    def forget(self, key_id: str) -> None:
        """The log says that there is no such key any more."""
        self._keys.pop(key_id, None)

    def find(self, key_id: str) -> ApiKey | None:
        """A key by its id."""
        return self._keys.get(key_id)

    def all(self) -> tuple[ApiKey, ...]:
        """Every key, the oldest first."""
        return tuple(sorted(self._keys.values(), key=lambda key: (key.created_at, key.id)))

    def verify(self, text: str, now: datetime) -> Principal | None:
        """Whose key this is, or None for whatever reason: a caller is not told which."""
        parsed = parse_key(text)
        if parsed is None:
            return None
        key_id, digest = parsed
        key = self._keys.get(key_id)
        # Compared also where there is no such key, so that both take as long.
        right = hmac.compare_digest(digest, key.secret_sha256 if key else _NO_DIGEST)
        if key is None or not right or state_of(key, now) != "live":
            return None
        scopes = frozenset(Scope(scope) for scope in key.scopes if scope in _SCOPES)
        return Principal(tenant=key.tenant, subject=key.id, scopes=scopes, expires_at=key.expires_at)

    def still_allows(self, principal: Principal, now: datetime) -> bool:
        """Whether who was let in once still may be: for connections that last. Of a token only its end is known."""
        if principal.expires_at is not None and principal.expires_at <= now:
            return False
        key = self._keys.get(principal.subject)
        return key is None or key.tenant != principal.tenant or state_of(key, now) == "live"


def merged(old: ApiKey | None, new: ApiKey) -> ApiKey:
    """What is known of a key once `new` is read after `old`: what ends it is never taken back, whoever wrote last.

    Two operators may change one key at the same time, each from what they had read.
    """
    if old is None:
        return new
    return replace(
        new,
        expires_at=earlier(old.expires_at, new.expires_at),
        revoked_at=earlier(old.revoked_at, new.revoked_at),
    )


def state_of(key: ApiKey, now: datetime) -> str:
    """`live`, `revoked` or `expired`. A revocation counts at once, whatever the clock of who revoked said."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "live"


def earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """The earlier moment; None is never."""
    return min((moment for moment in (one, other) if moment is not None), default=None)
