"""One image as a source names it, and how paths and URLs become its URI."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_from_bytes, urlsplit

from schemas.errors import ConfigurationError

SCHEMES = frozenset({"file", "http", "https", "s3", "gs", "az"})
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?=/)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image that a source names.

    `name` is its identity within the batch: the same source item has the same name on every run. `id`, `key`, `tenant`
    and `sha256` are None unless the source says them.
    """

    uri: str
    name: str
    id: str | None = None
    key: str | None = None
    tenant: str | None = None
    sha256: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def from_path(path: Path | str) -> Item:
    """Name a local file, by its absolute path as a percent-encoded `file:` URI (symbolic links are kept)."""
    uri = file_uri(path)
    return Item(uri=uri, name=uri)


def from_url(url: str) -> Item:
    """Name what a URL points at; raises `ConfigurationError` for a scheme that no worker can fetch."""
    scheme = urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise ConfigurationError(f"{url}: unsupported scheme {scheme!r}, use one of {', '.join(sorted(SCHEMES))}")
    return Item(uri=url, name=url)


def file_uri(path: Path | str) -> str:
    """`file:` URI of a path, made absolute; bytes that are not UTF-8 are kept, percent-encoded."""
    return "file://" + quote_from_bytes(os.fsencode(os.path.abspath(path)))  # noqa: PTH100 - resolve() follows links


def is_url(text: str) -> bool:
    """Whether text is a URL rather than a path (`a:b.jpg` is a path)."""
    return _URL.match(text) is not None
