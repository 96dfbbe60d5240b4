"""What clients say: a subscription, in a websocket message or in a query string."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multidict import MultiMapping

from sinks.filters import Filter, InvalidMessageError, parse_filter

TICKET = "ticket"
"""The name in a query that is a credential and no filter: whoever knows callers has looked at it before."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """Wanted events, and the cursor after which to begin (None: now)."""

    wanted: Filter
    since: str | None = None


def parse_message(text: str) -> Subscription:
    """`{"type": "subscribe", "filter": {...}, "since": "..."}`, the last two optional. Raises InvalidMessageError."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidMessageError("not JSON") from error
    if not isinstance(message, dict) or message.get("type") != "subscribe":
        raise InvalidMessageError('the only message there is: {"type": "subscribe", "filter": {...}, "since": "..."}')
    unknown = message.keys() - {"type", "filter", "since"}
    if unknown:
        raise InvalidMessageError(f"unknown field {min(unknown)[:40]!r}; known: type, filter, since")
    wanted, since = message.get("filter", {}), message.get("since")
    if not isinstance(wanted, dict):
        raise InvalidMessageError("filter is an object")
    if not (since is None or isinstance(since, str)):
        raise InvalidMessageError("since is a cursor, as it came with a message")
    return Subscription(parse_filter(wanted), since)


def parse_query(query: MultiMapping[str], last_event_id: str | None = None) -> Subscription:
    """The same of a query: filter names (repeated for several values), `min_score`, `since`. Raises InvalidMessageError.

    `last_event_id` is newer than `since`: a browser that reconnects repeats its first query.
    """
    fields: dict[str, Any] = {name: query.getall(name) for name in set(query) - {"since", "min_score", TICKET}}
    if "min_score" in query:
        fields["min_score"] = _number(query)
    return Subscription(parse_filter(fields), last_event_id or query.get("since"))


def _number(query: Mapping[str, str]) -> float:
    try:
        return float(query["min_score"])
    except ValueError as error:
        raise InvalidMessageError("min_score is a number in 0..1") from error
