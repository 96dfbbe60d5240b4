"""Who calls: what a verified credential says, and nothing that a request says of itself."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

REQUEST_KEY = "principal"
"""Under this name a server keeps the `Principal` of a request while it is handled."""


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
