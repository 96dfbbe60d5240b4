"""Cursors: where a page ended, as an opaque text. They name no tenant and no filter: those come with every request."""

import base64
import json

from sinks.store_base import InvalidCursorError
from sinks.store_records import searchable

_LONGEST = 1_500
_STRANGE = "the cursor is not one of this server's"


def encode_cursor(*place: int | str) -> str:
    """The text for a place in an order."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, *kinds: type) -> tuple[int | str, ...] | None:
    """The place that a cursor stands for, None for no cursor. `kinds` are the types that it must have.

    Raises InvalidCursorError for anything that `encode_cursor` did not make for this order.
    """
    if cursor is None:
        return None
    try:
        place = json.loads(base64.b64decode(cursor[:_LONGEST].encode("ascii") + b"===", altchars=b"-_"))
        fits = [type(value) for value in place] == list(kinds) and all(map(_is_sound, place))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidCursorError(_STRANGE) from error
    if not fits:
        raise InvalidCursorError(_STRANGE)
    return tuple(place)


def _is_sound(value: int | str) -> bool:
    """Whether a database takes it."""
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return searchable(value) == value
