"""Who may name which URI: workers fetch with our credentials, so that a caller must not say where from."""

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from schemas.problems import ProblemError

_FORBIDDEN = {"file", "s3", "gs", "az"}


def check_uri(uri: str, prefixes: Sequence[str], uploads_url: str) -> None:
    """Let in http and https URLs, and what begins with one of the operator's `prefixes` and is nobody's upload.

    A tenant's own uploads are asked for before. Where an http URL leads is the worker's to judge, at the moment when it connects. Raises
    ProblemError: 422 `uri_unsupported`, `uri_forbidden`.
    """
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ProblemError(422, "uri_unsupported", "not a URI") from error
    if any(uri.startswith(prefix) for prefix in prefixes):
        _check_path(uri, uploads_url)
    elif parts.scheme in _FORBIDDEN:
        raise _forbidden("this URI is neither one of your uploads nor one that the operator allows")
    elif parts.scheme not in {"http", "https"} or not host or " " in uri:
        raise ProblemError(422, "uri_unsupported", "images are fetched from http and https URLs")
    elif parts.username is not None or parts.password is not None:
        raise _forbidden("credentials in the URI")


def _check_path(uri: str, uploads_url: str) -> None:
    """No way around by dots, doubled slashes or encoded letters."""
    plain = unquote(uri)
    path = plain.partition("://")[2].partition("/")[2]
    if any(part in {"", ".", ".."} for part in path.split("/")) or "\\" in plain:
        raise _forbidden("'.', '..' and empty parts in the URI's path")
    if f"{plain}/".startswith(f"{unquote(uploads_url)}/"):
        raise _forbidden("somebody else's upload, or none")


def _forbidden(detail: str) -> ProblemError:
    return ProblemError(422, "uri_forbidden", detail)
