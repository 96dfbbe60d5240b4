"""What a caller over HTTP is told when a request cannot be done: an RFC 9457 problem with a stable code."""

from collections.abc import Mapping
from http import HTTPStatus

from schemas.errors import SightstreamError

CONTENT_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:sightstream:problem:"


class ProblemError(SightstreamError):
    """Stop here and tell the caller so. Raise it anywhere under a handler: the server's middleware renders it.

    `status`: HTTP's. `code`: a stable snake_case word for programs; codes are added, never renamed. `detail`: one sentence for people that
    names no other tenant's data, no path of this machine and nothing that an upstream said. `retry_after_s`: when to come again, if ever
    (becomes `Retry-After`). `extra`: further JSON members of the document.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        retry_after_s: float | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.extra = dict(extra or {})

    def document(self, request_id: str | None = None) -> dict[str, object]:
        """The problem as JSON members; also the `problem` of one image within a batch that was accepted otherwise."""
        members: dict[str, object] = {
            **self.extra,
            "type": f"{_TYPE_PREFIX}{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if request_id is not None:
            members["request_id"] = request_id
        return members


def not_found(what: str) -> ProblemError:
    """The one answer for what does not exist and for what belongs to somebody else; `what`: such as `image`."""
    return ProblemError(HTTPStatus.NOT_FOUND, "not_found", f"there is no such {what}")
