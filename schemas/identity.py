"""Who calls: what a verified credential says, and nothing that a request says of itself."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

REQUEST_KEY = "principal"
"""Under this name a server keeps the `Principal` of a request while it is handled."""

IMAGES_KEY = "images_taken"
"""Under this name a handler that took images says how many, before it returns: they count against the tenant's day."""

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Scope(StrEnum):
    """What a credential allows."""

    SUBMIT = "submit"
    READ = "read"
    DELETE = "delete"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A caller. `subject`: the key's id or the token's subject; `expires_at`: when connections that it opened must end."""

    tenant: str
    subject: str
    scopes: frozenset[Scope]
    expires_at: datetime | None = None

    def may(self, scope: Scope) -> bool:
        """Whether it may do what `scope` names; an admin may do everything within its tenant."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


OPEN = Principal(tenant="default", subject="open", scopes=frozenset(Scope))
"""Everybody, where a server on loopback asks nobody who they are."""


def is_tenant(name: str) -> bool:
    """Whether this may be a tenant's name: 1 to 64 letters, digits, `_` and `-`, since it stands in paths and record keys."""
    return _TENANT.fullmatch(name) is not None
