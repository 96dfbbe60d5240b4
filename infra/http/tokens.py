"""JWTs of a configured issuer, verified by the rules of RFC 8725."""

from datetime import UTC, datetime
from typing import Any

import jwt

from infra.http.jwks import Jwks
from infra.http.policies import TokenPolicy
from schemas.identity import Principal, Scope, is_tenant

_SCOPES = {scope.value: scope for scope in Scope}
_MAX_CHARACTERS = 8_000
_MAX_KID = 256
_REQUIRED = ["exp", "iat", "iss", "aud", "sub"]


class Tokens:
    """Tells whose token it is. The algorithm is the key's, which the policy must allow: the token's header only has to agree."""

    def __init__(self, policy: TokenPolicy, keys: Jwks) -> None:
        self._policy, self._keys = policy, keys
        self._types = frozenset(kind.lower() for kind in policy.types)

    async def verify(self, token: str) -> Principal | None:
        """Whose token this is, or None for whatever reason. Raises BusyError while the issuer's keys are not known."""
        if len(token) > _MAX_CHARACTERS or self._policy.jwks_url is None:
            return None
        try:
            kid = self._kid(jwt.get_unverified_header(token))
            key = None if kid is None else await self._keys.key(kid)
            return None if key is None else self._principal(self._claims(token, key))
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, OSError, RecursionError):
            return None

    def _kid(self, header: dict[str, Any]) -> str | None:
        """The key that the token names, where its type is one that opens this door: an ID token is signed by the same issuer."""
        kind, kid = header.get("typ"), header.get("kid")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in self._types:
            return None
        return kid if isinstance(kid, str) and 0 < len(kid) <= _MAX_KID else None

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=self._policy.audience,
            issuer=self._policy.issuer,
            leeway=self._policy.leeway_s,
            options={
                "require": _REQUIRED,
                "strict_aud": self._policy.strict_audience,
                "enforce_minimum_key_length": True,
            },
        )

    def _principal(self, claims: dict[str, Any]) -> Principal | None:
        tenant = claims.get(self._policy.tenant_claim) if self._policy.tenant_claim else "default"
        if not isinstance(tenant, str) or not is_tenant(tenant):
            return None
        said = claims.get(self._policy.scope_claim) or []
        words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
        prefix = self._policy.scope_prefix
        scopes = {
            _SCOPES[word.removeprefix(prefix)]
            for word in words
            if isinstance(word, str) and word.startswith(prefix) and word.removeprefix(prefix) in _SCOPES
        }
        # Within the leeway a token still counts, so connections end where it does.
        ends = datetime.fromtimestamp(int(claims["exp"]) + self._policy.leeway_s, UTC)
        return Principal(tenant=tenant, subject=claims["sub"][:256], scopes=frozenset(scopes), expires_at=ends)
