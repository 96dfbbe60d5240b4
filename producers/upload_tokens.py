"""Upload URLs of a local store: a token that says whose upload it is, where it goes and until when, and that only we can have written."""

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass

from schemas.problems import ProblemError, not_found

_MAX_TOKEN = 1024


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token allows: one image of `kind` at `path` of the store. `sha256`: which it must be, if that was said.

    `expires_at` in seconds since 1970.
    """

    path: str
    kind: str
    sha256: str | None
    expires_at: float


class UploadTokens:
    """Signs and reads tokens (HMAC-SHA-256). An empty secret is replaced by a random one: tokens then end with the process."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(
            b"sightstream upload token\n" + (secret.encode() or secrets.token_bytes(32))
        ).digest()

    def write(self, grant: Grant) -> str:
        """A token, of letters that stand in a URL as they are."""
        body = _encode(json.dumps(asdict(grant)).encode())
        return f"{body}.{self._mac(body)}"

    def read(self, token: str, now: float) -> Grant:
        """What a token allows. Raises ProblemError: 404 `not_found` for what we did not write, 410 `expired`."""
        body, _, mac = token.partition(".")
        if len(token) > _MAX_TOKEN or not token.isascii() or not hmac.compare_digest(mac, self._mac(body)):
            raise not_found("upload")
        grant = Grant(**json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))
        if now >= grant.expires_at:
            raise ProblemError(410, "expired", "this upload URL has expired; ask for a new one")
        return grant

    def _mac(self, body: str) -> str:
        return _encode(hmac.digest(self._key, body.encode(), "sha256"))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
