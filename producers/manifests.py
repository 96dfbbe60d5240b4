"""Lists of images in a file: a URI a line, JSON lines, or CSV; read line by line, whatever their length.

Every line is an image of its own: an item's name is its URI and its line number, so that a list may name an image twice, and
lines appended to a list leave the ids of those before them as they were.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from producers.items import Item, file_uri, from_url, is_url
from schemas.errors import ConfigurationError

_FIELDS = frozenset({field.name for field in fields(Item)}) - {"name", "uri", "attributes"}
_HEX_DIGITS = frozenset("0123456789abcdef")
Row = Mapping[str, Any]


def read(path: Path) -> Iterator[Item] | None:
    """The items of a manifest, or None if the file's suffix says that it is something else.

    `.txt`, `.lst`: a URI or path a line, blank lines and lines from `#` on are passed over. `.jsonl`, `.ndjson`: an object a
    line. `.csv`: with a header. Columns or members `uri` (required), `id`, `key`, `tenant`, `sha256`; `attributes` (JSON
    lines only) and every other scalar one become attributes. Relative paths are relative to the manifest. Paths are not
    looked at: the worker, not this machine, must find them. Raises `ConfigurationError`, naming the line, while iterating.
    """
    reader = _READERS.get(path.suffix.lower())
    return None if reader is None else _items(path, reader)


def _items(path: Path, reader: Callable[[Path], Iterator[tuple[int, Row]]]) -> Iterator[Item]:
    try:
        for line, row in reader(path):
            try:
                yield _item(row, line, path.parent)
            except (ConfigurationError, ValueError) as error:
                raise ConfigurationError(f"{path}:{line}: {error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _item(row: Row, line: int, parent: Path) -> Item:
    uri = row.get("uri")
    if not isinstance(uri, str) or not uri:
        raise ValueError("no uri")
    uri = from_url(uri).uri if is_url(uri) else file_uri(parent / uri)
    said = {name: str(row[name]) for name in _FIELDS if row.get(name) not in (None, "")}
    item = Item(uri=uri, name=f"{uri}#{line}", attributes=_attributes(row), **said)
    for text in (uri, *said.values(), *item.attributes, *item.attributes.values()):
        text.encode()  # JSON may hold half a surrogate pair, Avro may not
    return item if item.sha256 is None else replace(item, sha256=_digest(item.sha256))


def _attributes(row: Row) -> Mapping[str, str]:
    inner = row.get("attributes") or {}
    if not isinstance(inner, Mapping):
        raise ValueError("attributes must be an object")  # noqa: TRY004 - wrong data, not a wrong call
    outer = {name: value for name, value in row.items() if name not in {*_FIELDS, "uri", "attributes"}}
    return {name: _scalar(name, value) for name, value in {**outer, **inner}.items() if value not in (None, "")}


def _scalar(name: str, value: object) -> str:
    if isinstance(value, dict | list):
        raise ValueError(f"{name} must be text or a number")  # noqa: TRY004 - wrong data, not a wrong call
    return value if isinstance(value, str) else json.dumps(value)


def _digest(text: str) -> str:
    digest = text.lower().removeprefix("sha256:")
    if len(digest) != 64 or not _HEX_DIGITS.issuperset(digest):
        raise ValueError("sha256 must be 64 hexadecimal digits")
    return digest


def _text_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if text and not text.startswith("#"):
                yield number, {"uri": text}


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            row = _parsed(path, number, line)
            yield number, row


def _parsed(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigurationError(f"{path}:{number}: {error}") from error
    if not isinstance(row, dict):
        raise ConfigurationError(f"{path}:{number}: not a JSON object")
    return row


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, restkey="")
        if "uri" not in (reader.fieldnames or ()):
            raise ConfigurationError(f"{path}: the header has no column uri")
        for row in reader:
            if "" in row:
                raise ConfigurationError(f"{path}:{reader.line_num}: more fields than the header")
            yield reader.line_num, row


_READERS: Mapping[str, Callable[[Path], Iterator[tuple[int, Row]]]] = {
    ".txt": _text_rows,
    ".lst": _text_rows,
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".csv": _csv_rows,
}
