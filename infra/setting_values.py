"""Values of settings: from text or TOML to a section's types; errors name the setting, where it was written, and the nearest name."""

import difflib
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Mapping as MappingType
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import cattrs

from schemas.errors import ConfigurationError

Section = TypeVar("Section")

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Given:
    """One setting as somebody wrote it.

    `path`: (`kafka`, `bootstrap`); of an environment variable its name without the prefix (`KAFKA_BOOTSTRAP`) alone.
    """

    path: tuple[str, ...]
    value: Any = field(repr=False)
    origin: str = ""
    environment: bool = False

    @property
    def name(self) -> str:
        """The path with dots."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Name:
    """A name that a section knows: the path of its field, the key within a mapping field (else None), and the field's type."""

    path: tuple[str, ...]
    key: str | None
    kind: Any


def names_of(section: str, kind: type) -> dict[str, Name]:
    """Dotted name -> field, nested sections included. Mapping fields list their keys in the field's metadata (`keys`)."""
    return (
        {".".join([section, *filter(None, [dotted])]): name for dotted, name in _names(kind, ())}
        if section
        else dict(_names(kind, ()))
    )


def _names(kind: type, above: tuple[str, ...]) -> Iterator[tuple[str, Name]]:
    hints = get_type_hints(kind)
    for item in fields(kind):
        if not item.init:
            continue
        path = (*above, item.name)
        if is_dataclass(hints[item.name]):
            yield from _names(hints[item.name], path)
            continue
        yield ".".join(path), Name(path, None, hints[item.name])
        for key in item.metadata.get("keys", ()):
            yield ".".join([*path, key]), Name(path, key, str)


def environment_name(dotted: str, name: Name) -> str:
    """`kafka.bootstrap` -> `KAFKA_BOOTSTRAP`; keys of a mapping stand without the mapping's name: `KAFKA_SASL_USERNAME`."""
    if name.key is not None:
        dotted = f"{dotted.removesuffix(name.key).removesuffix('.').rpartition('.')[0]}.{name.key}"
    return dotted.replace(".", "_").upper()


def structure(section: str, kind: type[Section], given: Sequence[Given]) -> Section:
    """The section made of what was given (later entries win) and its defaults. Raises ConfigurationError."""
    known = names_of(section, kind)
    by_environment = {environment_name(dotted, name): dotted for dotted, name in known.items()}
    tree: dict[str, Any] = {}
    for entry in given:
        dotted = by_environment.get(entry.name) if entry.environment else entry.name
        if dotted in known:
            _place(tree, known[dotted], _convert(entry, dotted, known[dotted].kind))
        elif (table := _table_of(entry, known, depth=bool(section))) is not None:
            _place_in_table(tree, table, entry.path[len(table.path) + bool(section) :], entry.value)
        else:
            raise unknown(entry, by_environment if entry.environment else known)
    return _build(section, kind, tree)


def unknown(entry: Given, known: Mapping[str, Any]) -> ConfigurationError:
    """The error for a name that nothing knows."""
    nearest = difflib.get_close_matches(entry.name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return ConfigurationError(f"{entry.origin}: there is no setting {entry.name!r}{hint}")


def _place(tree: dict[str, Any], name: Name, value: Any) -> None:
    *above, last = name.path
    for part in above:
        tree = tree.setdefault(part, {})
    if name.key is None:
        tree[last] = value
    else:
        tree[last] = {**tree.get(last, {}), name.key: value}


def _table_of(entry: Given, known: Mapping[str, Name], *, depth: int) -> Name | None:
    """The field of free keys (`images.stores`) that a path leads into, if any."""
    for end in range(len(entry.path) - 1, depth, -1):
        name = known.get(".".join(entry.path[:end]))
        if (
            name is not None
            and get_origin(name.kind) is MappingType
            and not any(other.path == name.path and other.key for other in known.values())
        ):
            return name
    return None


def _place_in_table(tree: dict[str, Any], name: Name, keys: Sequence[str], value: Any) -> None:
    for part in (*name.path, *keys[:-1]):
        tree = tree.setdefault(part, {})
    tree[keys[-1]] = value


def _build(section: str, kind: type[Section], tree: Mapping[str, Any]) -> Section:
    hints = get_type_hints(kind)
    values = dict(tree)
    for item in fields(kind):  # type: ignore[arg-type]  # sections are dataclasses
        if is_dataclass(hints[item.name]) and item.name in tree:
            values[item.name] = _nested(f"{section}.{item.name}", item, hints[item.name], tree[item.name])
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"settings of {section!r}: {error}") from error


def _nested(section: str, item: Field[Any], kind: Any, tree: Mapping[str, Any]) -> Any:
    """A section within a section: what its holder has as the default, with what was given put in."""
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    kept = (
        {} if default is MISSING else {part.name: getattr(default, part.name) for part in fields(default) if part.init}
    )
    return _build(section, kind, {**kept, **tree})


def _convert(entry: Given, dotted: str, kind: Any) -> Any:
    try:
        return _CONVERTER.structure(_from_text(entry.value, kind), kind)
    except Exception:  # noqa: BLE001 - cattrs raises a bare Exception for a Literal
        # Neither the value nor the cause is shown: either may hold a secret.
        raise ConfigurationError(f"{entry.origin}: {dotted} must be {_described(kind)}") from None


def _from_text(value: Any, kind: Any) -> Any:
    """Environment and command line give text: `a,b` for lists, `name=value,name=value` for mappings, TOML for both; '' may be None."""
    if not isinstance(value, str):
        return value
    if _is_optional(kind):
        if not value:
            return None
        kind = _without_none(kind)
    if value[:1] in {"{", "["}:
        return tomllib.loads(f"value = {value}")["value"]
    origin = get_origin(kind)
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(origin, type) and issubclass(origin, MappingType):
        return dict(part.split("=", 1) for part in parts)
    if isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet):
        return parts
    return value


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) in {Union, types.UnionType} and type(None) in get_args(kind)


def _without_none(kind: Any) -> Any:
    rest = [part for part in get_args(kind) if part is not type(None)]
    return rest[0] if len(rest) == 1 else kind


def _described(kind: Any) -> str:
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    return (
        plain.get(kind, str(kind).replace("typing.", ""))
        if not isinstance(kind, type)
        else plain.get(kind, kind.__name__)
    )


def _whole(value: Any, _: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError("not a whole number")
    return int(value)


def _truth(value: Any, _: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text not in _TRUE | _FALSE:
        raise ValueError("neither true nor false")
    return text in _TRUE


def _text(value: Any, _: Any) -> str:
    if isinstance(value, list | dict):
        raise TypeError("not text")
    return str(value)


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    converter.register_structure_hook(int, _whole)
    converter.register_structure_hook(bool, _truth)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(Path, lambda value, _: Path(_text(value, None)).expanduser())
    converter.register_structure_hook(timedelta, lambda value, _: timedelta(seconds=float(value)))
    converter.register_structure_hook(IPv4Network | IPv6Network, lambda value, _: ip_network(value))
    return converter


_CONVERTER = _converter()
