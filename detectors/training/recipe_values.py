"""From TOML's values to a section's types, by the types' own word: what is unknown, missing or of another type is named."""

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from schemas.errors import ConfigurationError

Section = TypeVar("Section")

_PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def structure(kind: type[Section], given: Mapping[str, Any], above: str = "") -> Section:
    """A dataclass made of a table, nested ones of nested tables. Raises ConfigurationError that names the entry with dots."""
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{above} must be a table")
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]  # sections are dataclasses
    for name in given:
        if name not in known:
            raise ConfigurationError(_unknown(_dotted(above, name), [_dotted(above, other) for other in known]))
    for name, item in known.items():
        if name not in given and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigurationError(f"{_dotted(above, name)} is missing: {describe(hints[name])}")
    values = {name: _convert(hints[name], value, _dotted(above, name)) for name, value in given.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def describe(kind: Any) -> str:
    """A type in the words of who writes a recipe."""
    arguments = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in arguments)
    if get_origin(kind) in {Union, types.UnionType}:
        return " or ".join(describe(part) for part in arguments)
    if get_origin(kind) is tuple:
        counted = "" if arguments[-1] is Ellipsis else f" of {len(arguments)}"
        return f"a list{counted}, each {describe(arguments[0])}"
    return "a table" if is_dataclass(kind) else _PLAIN.get(kind, str(kind))


def _convert(kind: Any, value: Any, name: str) -> Any:
    if is_dataclass(kind):
        return structure(kind, value, name)  # type: ignore[arg-type]  # the class itself
    if get_origin(kind) is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        part, *rest = get_args(kind)
        if not rest or rest[0] is Ellipsis or len(value) == len(rest) + 1:
            return tuple(_convert(part, entry, name) for entry in value)
    elif get_origin(kind) in {Union, types.UnionType}:
        fitting = [part for part in get_args(kind) if _fits(part, value)]
        if fitting:
            return _convert(fitting[0], value, name)
    elif _fits(kind, value):
        return float(value) if kind is float else value
    raise ConfigurationError(f"{name} must be {describe(kind)}, not {value!r}")


def _fits(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _dotted(above: str, name: str) -> str:
    return f"{above}.{name}" if above else name


def _unknown(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"there is no {name!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
