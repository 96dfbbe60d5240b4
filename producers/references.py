"""How an item becomes a reference: its id, its ordering key, and what a whole batch shares."""

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote, urlsplit

from producers.items import Item
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters, ImageRef, Lane

_NAMESPACE = uuid.UUID("6f3b1c52-2d0e-5a44-9c0b-5e1d9a7c4f10")

KeyRule = Callable[[Item], str]
"""An item's ordering key; empty: the image's own id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What the references of one batch have in common. An item's own tenant and attributes win.

    `deadline` counts from the moment at which an image is handed to Kafka.
    """

    id: str
    lane: Lane = Lane.ONLINE
    tenant: str = "default"
    model: str | None = None
    parameters: DetectParameters = field(default_factory=DetectParameters)
    attributes: Mapping[str, str] = field(default_factory=dict)
    deadline: timedelta | None = None
    key_rule: KeyRule = lambda _: ""


def image_id(batch_id: str, item: Item) -> str:
    """The id of an item's image: its own if the source says one, else UUIDv5 of (batch id, item name), 32 hex digits.

    The same item of the same batch has the same id in every run, so that publishing it again changes nothing downstream.
    """
    return item.id or uuid.uuid5(_NAMESPACE, f"{batch_id}\n{item.name}").hex


def references(
    items: Iterator[Item], batch: Batch, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Iterator[ImageRef]:
    """The references of a batch, in order, each made when it is asked for."""
    for item in items:
        submitted = now()
        yield ImageRef(
            id=image_id(batch.id, item),
            uri=item.uri,
            tenant=item.tenant or batch.tenant,
            key=item.key or batch.key_rule(item),
            batch_id=batch.id,
            lane=batch.lane,
            model=batch.model,
            parameters=batch.parameters,
            sha256=item.sha256,
            submitted_at=submitted,
            deadline=None if batch.deadline is None else submitted + batch.deadline,
            attributes={**batch.attributes, **item.attributes},
        )


def key_rule(text: str) -> KeyRule:
    """Read a rule: `none`, `filename`, `parent` (the directory's name), `column:NAME`, or `regex:PATTERN`.

    A pattern is searched in the URI; its first group, or else the whole match, is the key, and without a match the image's
    own id is. Raises `ConfigurationError` for anything else.
    """
    if text in _RULES:
        return _RULES[text]
    kind, _, argument = text.partition(":")
    if kind == "column" and argument:
        return _column(argument)
    if kind == "regex" and argument:
        return _regex(argument)
    raise ConfigurationError(f"{text}: a key rule is none, filename, parent, column:NAME or regex:PATTERN")


def _column(name: str) -> KeyRule:
    def rule(item: Item) -> str:
        if name not in item.attributes:
            raise ConfigurationError(f"{item.name}: no column {name} to take the key from")
        return item.attributes[name]

    return rule


def _regex(pattern: str) -> KeyRule:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(f"{pattern}: not a regular expression: {error}") from error

    def rule(item: Item) -> str:
        found = compiled.search(unquote(item.uri))
        return "" if found is None else (found[1] or "" if compiled.groups else found[0])

    return rule


def _path_part(place: int) -> KeyRule:
    def rule(item: Item) -> str:
        parts = unquote(urlsplit(item.uri).path).split("/")
        return parts[place] if len(parts) >= -place else ""

    return rule


_RULES: Mapping[str, KeyRule] = {"none": lambda _: "", "filename": _path_part(-1), "parent": _path_part(-2)}
