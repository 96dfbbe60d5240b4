"""Signatures of webhooks as Standard Webhooks has them (https://www.standardwebhooks.com): a secret per tenant, HMAC-SHA256."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence

_PREFIX = "whsec_"
_PURPOSE = b"sightstream/webhooks/v1/"


def secret_of(master: str, tenant: str) -> str:
    """A tenant's signing secret, to be given to whoever receives its webhooks. Always the same for the same master secret."""
    key = hmac.digest(master.encode(), _PURPOSE + tenant.encode(), hashlib.sha256)
    return _PREFIX + base64.b64encode(key).decode()


def message_id(tenant: str, batch_id: str) -> str:
    """The `webhook-id` of a batch's delivery: the same for each attempt, from any process, also after the store was made anew."""
    digest = hashlib.blake2b(f"{tenant}/{batch_id}".encode(), digest_size=16, person=b"webhook")
    return f"msg_{digest.hexdigest()}"


def signed_headers(message: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> Mapping[str, str]:
    """The headers that prove a body: a signature for each secret (`whsec_...`), the newest first. `timestamp`: seconds since the epoch."""
    content = f"{message}.{timestamp}.".encode() + body
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{_sign(content, secret)}" for secret in secrets),
    }


def _sign(content: bytes, secret: str) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
