"""Values that several commands take on their command lines: spans of time, moments, NAME=VALUE pairs."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")


class _Span(click.ParamType):
    """A span of time: `90`, `1.5s`, `5m`, `2h`, `7d`."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it; a usage error if it is none."""
        if isinstance(value, timedelta):
            return value
        found = _SPAN.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is not a span of time such as 90s, 5m, 2h or 7d", param, ctx)
        try:
            return timedelta(seconds=float(found[1]) * _UNITS[found[2]])
        except OverflowError:
            self.fail(f"{value!r} is too long", param, ctx)


class _Moment(click.ParamType):
    """A moment: ISO 8601 (UTC unless it says otherwise), or a span before now."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it; a usage error if it is none."""
        if isinstance(value, datetime):
            return value
        if _SPAN.fullmatch(value):
            return datetime.now(UTC) - SPAN.convert(value, param, ctx)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither a moment such as 2026-01-31T12:00 nor a span such as 2h", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class _Pair(click.ParamType):
    """NAME=VALUE."""

    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Read it; a usage error if it is none."""
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, text


SPAN = _Span()
MOMENT = _Moment()
PAIR = _Pair()
