"""What a request asks for: its query, checked to the letter, as values. Whatever cannot be understood is 400 `invalid_query`."""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from typing import TypeVar

from aiohttp import web

from schemas.identity import REQUEST_KEY, Principal, Scope
from schemas.problems import ProblemError, not_found
from sinks.store_base import PAGE_LIMIT, ImageQuery
from sinks.stored import ImageStatus

LONGEST_WAIT_S = 60.0
_MOST_LABELS = 100
# What callers name things by, which submission takes without control characters only.
_NAMES = frozenset({"camera", "model"})
# What others put on the log directly may have longer ids than our own.
_LONGEST_ID, _LONGEST_CURSOR = 512, 1_500
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+ -]\d\d:\d\d)", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(\.\d{0,9})?|\.\d{1,9}", re.ASCII)
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)

Choice = TypeVar("Choice", bound=StrEnum)


def caller(request: web.Request, scope: Scope) -> str:
    """The tenant that asks. Raises ProblemError for somebody unknown, or whose credential lacks the scope."""
    principal = request.get(REQUEST_KEY)
    if not isinstance(principal, Principal):
        raise ProblemError(HTTPStatus.UNAUTHORIZED, "unauthorized", "this needs a valid credential")
    if not principal.may(scope):
        raise ProblemError(HTTPStatus.FORBIDDEN, "forbidden", f"this credential lacks the scope {scope}")
    return principal.tenant


def path_id(request: web.Request, what: str) -> str:
    """The id in the path. One that cannot be anybody's is unknown: ProblemError 404."""
    found = request.match_info["id"]
    if not 1 <= len(found) <= _LONGEST_ID or not _storable(found):
        raise not_found(what)
    return found


class Query:
    """A request's query. `known`: the names that it may have; each but those of `lists` at most once."""

    def __init__(self, request: web.Request, known: Collection[str], lists: Collection[str] = ()) -> None:
        self._values = request.query
        for name in set(self._values):
            if name not in known:
                raise _invalid(f"there is no parameter {name[:40]!r}; known: {', '.join(known) or 'none'}")
            if name not in lists and len(self._values.getall(name)) > 1:
                raise _invalid(f"{name} is given more than once")

    def text(self, name: str, longest: int) -> str | None:
        """Text of 1 to `longest` characters."""
        found = self._values.get(name)
        return None if found is None else _text(name, found, longest)

    def texts(self, name: str, longest: int) -> tuple[str, ...]:
        """A parameter that may be repeated."""
        found = self._values.getall(name, [])
        if len(found) > _MOST_LABELS:
            raise _invalid(f"at most {_MOST_LABELS} of {name}")
        return tuple(_text(name, value, longest) for value in found)

    def number(self, name: str, most: float) -> float | None:
        """A decimal number in 0..`most`."""
        found = self._values.get(name)
        if found is None:
            return None
        if not _NUMBER.fullmatch(found) or float(found) > most:
            raise _invalid(f"{name} is a number in 0..{most:g}")
        return float(found)

    def whole(self, name: str, least: int, most: int) -> int | None:
        """A whole number in `least`..`most`."""
        found = self._values.get(name)
        if found is None:
            return None
        if not _WHOLE.fullmatch(found) or not least <= int(found) <= most:
            raise _invalid(f"{name} is a whole number in {least}..{most}")
        return int(found)

    def moment(self, name: str) -> datetime | None:
        """A time with its offset (RFC 3339)."""
        found = self._values.get(name)
        if found is None:
            return None
        try:
            if _MOMENT.fullmatch(found):
                # A plus that nobody escaped has become a space.
                return datetime.fromisoformat(found.upper().replace(" ", "+")).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # such as the 30th of February
        raise _invalid(f"{name} is a time as RFC 3339 has it, such as 2026-01-31T12:00:00Z")

    def choice(self, name: str, choices: type[Choice]) -> Choice | None:
        """One of some words."""
        found = self._values.get(name)
        if found is None:
            return None
        if found not in set(choices):
            raise _invalid(f"{name} is one of: {', '.join(choices)}")
        return choices(found)

    def version(self, name: str) -> str | None:
        """`NAME@VERSION` of a model."""
        found = self.text(name, 200)
        if found is not None and not all(found.rpartition("@")[::2]):
            raise _invalid(f"{name} is NAME@VERSION")
        return found

    def wait_s(self) -> float:
        """For how long the answer may be held."""
        return self.number("wait", LONGEST_WAIT_S) or 0.0

    def limit(self) -> int:
        """How many a page may hold."""
        return self.whole("limit", 1, PAGE_LIMIT) or 50

    def cursor(self) -> str | None:
        """Where a page begins."""
        return self.text("cursor", _LONGEST_CURSOR)


def image_query(request: web.Request, tenant: str) -> ImageQuery:
    """The search that a request asks for."""
    names = ("label", "min_score", "since", "until", "camera", "status", "batch", "model", "limit", "cursor")
    query = Query(request, names, lists=("label",))
    status, camera = query.choice("status", ImageStatus), query.text("camera", 256)
    return ImageQuery(
        tenant=tenant,
        labels=query.texts("label", 512),
        min_score=query.number("min_score", 1.0) or 0.0,
        keys=() if camera is None else (camera,),
        statuses=() if status is None else (status,),
        batch_id=query.text("batch", 200),
        model=query.text("model", 200),
        since=query.moment("since"),
        until=query.moment("until"),
        limit=query.limit(),
        cursor=query.cursor(),
    )


def _text(name: str, value: str, longest: int) -> str:
    if not 1 <= len(value) <= longest:
        raise _invalid(f"{name} has 1 to {longest} characters")
    if not _storable(value):
        raise _invalid(f"{name} holds a character that no text has")
    if name in _NAMES and any(character < " " or character == "\x7f" for character in value):
        raise _invalid(f"{name} holds a control character")
    return value


def _storable(text: str) -> bool:
    """Whether a database takes it: PostgreSQL refuses NUL, and no encoding has half a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _invalid(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.BAD_REQUEST, "invalid_query", detail)
