"""Where references come from: directories, files, globs and URLs here, lists of them in `producers.manifests`.

A source is a lazy stream of items in an order that depends on nothing but its content, so that "the first n items" means
the same after a restart. At most the names of one directory (and of those above it) are held at a time.
"""

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from producers import manifests
from producers.items import Item, from_path, from_url, is_url
from schemas.errors import ConfigurationError

IMAGE_SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_MAGIC = re.compile(r"[*?\[]")


def directory(root: Path) -> Iterator[Item]:
    """Every image below a directory, by suffix, sorted by name level by level.

    Hidden entries (leading dot) and linked directories are passed over.
    """
    for entry in _entries(root):
        if entry.is_dir(follow_symlinks=False):
            yield from directory(Path(entry.path))
        elif entry.is_file() and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
            yield from_path(entry.path)


def matching(pattern: str) -> Iterator[Item]:
    """Every file that a glob matches, sorted level by level; `**` crosses directories, and suffixes are not looked at."""
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
    return map(from_path, _expand(Path(*parts[:fixed]), parts[fixed:]))


def items(arguments: Sequence[str]) -> Iterator[Item]:
    """Every image of the arguments, in the order given: each one a directory, file, manifest, glob or URL.

    Raises `ConfigurationError`, when the argument's turn comes, for what names nothing.
    """
    for argument in arguments:
        yield from _one(argument)


def _one(argument: str) -> Iterator[Item]:
    if is_url(argument):
        return iter((from_url(argument),))
    path = Path(argument)
    if path.is_dir():
        return directory(path)
    if path.is_file():
        listed = manifests.read(path)
        return iter((from_path(path),)) if listed is None else listed
    if _MAGIC.search(argument):
        return _at_least_one(matching(argument), argument)
    raise ConfigurationError(f"{argument}: no such file or directory")


def _at_least_one(found: Iterator[Item], pattern: str) -> Iterator[Item]:
    first = next(found, None)
    if first is None:
        raise ConfigurationError(f"{pattern}: no file matches")
    yield first
    yield from found


def _expand(base: Path, parts: Sequence[str]) -> Iterator[str]:
    """Files below `base` that match the pattern `parts`; a `**` stands for any number of directories, none included."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _expand_deep(base, rest or ("*",))
        return
    for entry in _entries(base, hidden=part.startswith(".")):
        if not fnmatchcase(entry.name, part):
            continue
        if not rest and entry.is_file():
            yield entry.path
        elif rest and entry.is_dir():
            yield from _expand(Path(entry.path), rest)


def _expand_deep(base: Path, rest: Sequence[str]) -> Iterator[str]:
    yield from _expand(base, rest)
    for entry in _entries(base):
        if entry.is_dir(follow_symlinks=False):
            yield from _expand_deep(Path(entry.path), rest)


def _entries(base: Path, *, hidden: bool = False) -> list[os.DirEntry[str]]:
    """Entries of a directory by code point, whatever the locale and the file system say."""
    try:
        with os.scandir(base) as entries:
            found = [entry for entry in entries if hidden or not entry.name.startswith(".")]
    except OSError as error:
        raise ConfigurationError(f"{base}: {error.strerror}") from error
    return sorted(found, key=lambda entry: os.fsencode(entry.name))
