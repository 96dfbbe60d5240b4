"""Reads the files of a model from wherever the registry says they are."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from schemas.errors import BusyError, ConfigurationError, Reason, RejectedError

_CHUNK_BYTES = 1 << 20
_RETRY_AFTER_S = 10.0
_LONGEST = 300
_TIMEOUTS = {"timeout": timedelta(minutes=30), "connect_timeout": timedelta(seconds=10)}
_STORES = ("s3", "gs", "az")


class ModelFiles:
    """Opens `file:`, `http:` and `https:` URIs, and `s3:`, `gs:`, `az:` of the buckets in `stores` (obstore's options by bucket).

    Names are percent-encoded, as in any URI. The registry is written by operators, so that any file and any host will do: what is read
    has to have the digest that it names.
    """

    def __init__(self, stores: Mapping[str, Mapping[str, str]]) -> None:
        self._stores = stores

    @contextmanager
    def open(self, uri: str) -> Iterator[Iterator[bytes]]:
        """The bytes at `uri`, in pieces. Raises RejectedError where there is nothing to be had, BusyError where that may change."""
        scheme = uri.partition(":")[0].lower()
        if scheme == "file":
            with _translated(), _path(uri).open("rb") as file:
                yield iter(lambda: file.read(_CHUNK_BYTES), b"")
        elif scheme in (*_STORES, "http", "https"):
            with _translated():
                yield self._remote(uri, scheme)
        else:
            raise RejectedError(
                Reason.URI_UNSUPPORTED, f"a model's file is a file, http, https, s3, gs or az URI: {uri!r}"
            )

    def _remote(self, uri: str, scheme: str) -> Iterator[bytes]:
        from obstore.store import from_url  # noqa: PLC0415 - only for models that are elsewhere

        base, _, key = uri.partition("://")[2].partition("/")
        if "?" in key or "#" in key:
            raise RejectedError(
                Reason.URI_UNSUPPORTED, f"'?' and '#' in a file's name are written %3F and %23: {uri!r}"
            )
        root = f"{scheme}://{base}"
        given: dict[str, Any] = {
            "client_options": {**_TIMEOUTS, "allow_http": scheme == "http"},
            "retry_config": {"max_retries": 2, "retry_timeout": timedelta(minutes=1)},
        }
        if scheme in _STORES:
            if root not in self._stores:
                raise RejectedError(Reason.URI_FORBIDDEN, f"{root} is not among images.stores")
            options = dict(self._stores[root])
            given["client_options"]["allow_http"] = options.get("endpoint", "").startswith("http://")
            given["config"] = options
        return (bytes(piece) for piece in from_url(root, **given).get(unquote(key)).stream(min_chunk_size=_CHUNK_BYTES))


def _path(uri: str) -> Path:
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/"):
        raise RejectedError(Reason.URI_UNSUPPORTED, f"a model's file is file:///absolute/path: {uri!r}")
    return Path(path)


@contextmanager
def _translated() -> Iterator[None]:
    """Foreign errors by their remedy. What is said of them is for operators, who wrote the URI."""
    try:
        yield
    except (RejectedError, BusyError, ConfigurationError):
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise RejectedError(Reason.FETCH_FAILED, _brief(error)) from error
    except Exception as error:
        # OSError of a file system, or whatever obstore raises of a network.
        raise BusyError(Reason.FETCH_FAILED, _brief(error), _RETRY_AFTER_S) from error


def _brief(error: Exception) -> str:
    """The first line: obstore's messages end with the whole answer of the server."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:_LONGEST]
