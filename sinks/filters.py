"""Which events a subscriber wants, and who wants an event."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

from schemas.errors import SightstreamError
from sinks.events import Kind, Subject

MAX_VALUES = 100
MAX_VALUE_LENGTH = 512

_FIELDS = {
    "tenant": "tenants",
    "batch": "batches",
    "image": "images",
    "key": "keys",
    "label": "labels",
    "kind": "kinds",
}


class InvalidMessageError(SightstreamError):
    """What a client sent cannot be understood; the message says why and may be shown to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Events wanted: each field that is not empty must hold the event's value.

    `scope`: the one tenant whose events may be had, whatever else is wanted; None: everybody's. Clients cannot name it.
    `labels` and `min_score` ask for at least one detection with one of these labels and at least that score. They do not apply
    to failures, so that whoever waits for an image hears of it; `kinds` leaves failures out.
    """

    scope: str | None = None
    tenants: frozenset[str] = frozenset()
    batches: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    min_score: float = 0.0

    def within(self, tenant: str) -> Self:
        """The same for events of one tenant alone. Raises InvalidMessageError where the filter asks for another's."""
        if not self.tenants <= {tenant}:
            raise InvalidMessageError("tenant is your own; leave it out")
        return replace(self, scope=tenant, tenants=frozenset())

    def matches(self, event: Subject) -> bool:
        """Whether the event is wanted, and may be had."""
        return (
            (self.scope is None or event.tenant == self.scope)
            and (not self.tenants or event.tenant in self.tenants)
            and (not self.batches or event.batch_id in self.batches)
            and (not self.images or event.image_id in self.images)
            and (not self.keys or event.key in self.keys)
            and (not self.kinds or event.kind in self.kinds)
            and (event.kind is Kind.FAILED or self._sees(event.scores))
        )

    def _sees(self, scores: Mapping[str, float]) -> bool:
        if not self.labels:
            return self.min_score <= 0 or any(score >= self.min_score for score in scores.values())
        return any(label in scores and scores[label] >= self.min_score for label in self.labels)


def parse_filter(fields: Mapping[str, Any]) -> Filter:
    """The filter of a message or a query: names to a string or a list of strings, and `min_score` to a number in 0..1.

    Raises InvalidMessageError for unknown names, wrong types, and lists that are empty or too long.
    """
    unknown = fields.keys() - _FIELDS.keys() - {"min_score"}
    if unknown:
        raise InvalidMessageError(f"unknown filter {min(unknown)[:40]!r}; known: {', '.join(_FIELDS)}, min_score")
    chosen = {_FIELDS[name]: _values(name, fields[name]) for name in _FIELDS if name in fields}
    if not chosen.get("kinds", frozenset()) <= set(Kind):
        raise InvalidMessageError(f"kind is one of: {', '.join(Kind)}")
    return Filter(scope=None, **chosen, min_score=_score(fields.get("min_score", 0.0)))


def _values(name: str, value: Any) -> frozenset[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_VALUES:
        raise InvalidMessageError(f"{name} is a string or a list of 1 to {MAX_VALUES} strings")
    if not all(isinstance(item, str) and 1 <= len(item) <= MAX_VALUE_LENGTH for item in values):
        raise InvalidMessageError(f"{name} holds strings of 1 to {MAX_VALUE_LENGTH} characters")
    return frozenset(values)


def _score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidMessageError("min_score is a number in 0..1")
    return float(value)


Listener = TypeVar("Listener")

# Most selective first: a filter is looked up by the first of these that it names.
_SELECTORS: tuple[tuple[str, Callable[[Filter], frozenset[str]], Callable[[Subject], str | None]], ...] = (
    ("image", lambda f: f.images, lambda e: e.image_id),
    ("batch", lambda f: f.batches, lambda e: e.batch_id),
    ("key", lambda f: f.keys, lambda e: e.key),
    ("tenant", lambda f: f.tenants, lambda e: e.tenant),
    ("", lambda _: frozenset({""}), lambda _: ""),
)


class Audience(Generic[Listener]):
    """Listeners by filter. An event costs as much as the distinct filters it might match, not as the listeners there are.

    Filters of one scope lie apart from those of others: an event never meets what another tenant asks for, nor pays for it.
    """

    def __init__(self) -> None:
        self._scopes: dict[str | None, _Scope[Listener]] = {}

    def add(self, wanted: Filter, listener: Listener) -> None:
        """Let a listener hear what a filter wants."""
        self._scopes.setdefault(wanted.scope, _Scope()).add(wanted, listener)

    def remove(self, wanted: Filter, listener: Listener) -> None:
        """Undo `add`."""
        scope = self._scopes[wanted.scope]
        scope.remove(wanted, listener)
        if not scope.listeners:
            del self._scopes[wanted.scope]

    def of(self, event: Subject) -> Iterator[Listener]:
        """Every listener that wants the event and may have it, once for each filter it was added with."""
        for name in (event.tenant, None):
            if (scope := self._scopes.get(name)) is not None:
                yield from scope.of(event)


class _Scope(Generic[Listener]):
    """Listeners of one scope."""

    __slots__ = ("_filters", "listeners")

    def __init__(self) -> None:
        self.listeners: dict[Filter, dict[Listener, None]] = {}
        self._filters: dict[tuple[str, str | None], dict[Filter, None]] = {}

    def add(self, wanted: Filter, listener: Listener) -> None:
        self.listeners.setdefault(wanted, {})[listener] = None
        for place in _places(wanted):
            self._filters.setdefault(place, {})[wanted] = None

    def remove(self, wanted: Filter, listener: Listener) -> None:
        listeners = self.listeners[wanted]
        del listeners[listener]
        if listeners:
            return
        del self.listeners[wanted]
        for place in _places(wanted):
            del self._filters[place][wanted]
            if not self._filters[place]:
                del self._filters[place]

    def of(self, event: Subject) -> Iterator[Listener]:
        for name, _, value in _SELECTORS:
            for wanted in self._filters.get((name, value(event)), ()):
                if wanted.matches(event):
                    yield from self.listeners[wanted]


def _places(wanted: Filter) -> list[tuple[str, str | None]]:
    """Where a filter is looked up: under each value of its most selective field."""
    name, values = next((name, chosen(wanted)) for name, chosen, _ in _SELECTORS if chosen(wanted))
    return [(name, value) for value in values]
