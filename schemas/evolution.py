"""What a new version of a schema must keep to, so that any release reads any other's records (FULL_TRANSITIVE).

`problems` holds a version against all packaged older ones of its record, and against the house's rules, which are stricter than Avro's
where that keeps runs columnar (`schemas.columnar`) or mistakes out.
"""

import io
from collections.abc import Iterator
from typing import Any

import fastavro

NAMESPACE = "sightstream"
# Records that travel in runs: pyruhvro panics on these types.
HOT_RECORDS = frozenset({"ImageRef", "DetectionResult"})
_NOT_IN_RUNS = frozenset({"bytes", "fixed", "uuid"})
_ONLY_AT_THE_TOP = frozenset({"map", "timestamp-micros"})


def problems(new: dict[str, Any], older: list[dict[str, Any]]) -> list[str]:
    """Everything that is wrong with `new` after `older` (oldest first), as plain JSON schemas; empty means that it may be released."""
    found = list(_house_rules(new))
    for old in older:
        found += _changes(old, new)
        for writer, reader in ((old, new), (new, old)):
            error = _unreadable(writer, reader)
            if error:
                found.append(f"{reader['name']} does not read what was written: {error}")
    return found


def _house_rules(schema: dict[str, Any]) -> Iterator[str]:
    if schema.get("namespace") != NAMESPACE:
        yield f"{schema['name']}: the namespace is {NAMESPACE}"
    yield from _rules_of(schema, schema["name"], hot=schema["name"] in HOT_RECORDS, top=True)


def _rules_of(kind: Any, where: str, *, hot: bool, top: bool) -> Iterator[str]:
    """Rules broken by a type; `top` means directly in the record that travels."""
    name = (
        kind if isinstance(kind, str) else kind.get("logicalType", kind["type"]) if isinstance(kind, dict) else "union"
    )
    if hot and name in _NOT_IN_RUNS:
        yield f"{where}: a hot record has no {name}"
    if hot and not top and name in _ONLY_AT_THE_TOP:
        yield f"{where}: in a hot record a {name} stands at the top, where runs check it"
    if isinstance(kind, list):
        if len(kind) != 2 or kind[0] != "null":
            yield f"{where}: the only union is null or one type"
        yield from _rules_of(kind[-1], where, hot=hot, top=top)
    elif isinstance(kind, dict):
        yield from _rules_inside(kind, where, hot=hot, top=top)


def _rules_inside(kind: dict[str, Any], where: str, *, hot: bool, top: bool) -> Iterator[str]:
    if kind["type"] == "enum" and "default" not in kind:
        yield f"{where}: an enum has a default symbol"
    for part in ("items", "values"):
        if part in kind:
            yield from _rules_of(kind[part], f"{where}[]", hot=hot, top=False)
    for field in kind.get("fields", ()):
        inner = f"{where}.{field['name']}"
        if "default" not in field:
            yield f"{inner}: every field has a default"
        elif isinstance(field["type"], list) and field["default"] is not None:
            yield f"{inner}: the default of a union is null"
        yield from _rules_of(field["type"], inner, hot=hot, top=top and kind["type"] == "record" and "." not in where)


def _changes(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Changes of types that Avro would let pass in one direction, or that lose values: an enum may only grow at its end."""
    where = where or new["name"]
    if isinstance(old, dict) and isinstance(new, dict) and old["type"] == new["type"]:
        if old["type"] == "enum" and new["symbols"][: len(old["symbols"])] != old["symbols"]:
            yield f"{where}: an enum grows only at its end"
        for part in ("items", "values"):
            if part in old:
                yield from _changes(old[part], new[part], f"{where}[]")
        before = {field["name"]: field["type"] for field in old.get("fields", ())}
        for field in new.get("fields", ()):
            if field["name"] in before:
                yield from _changes(before[field["name"]], field["type"], f"{where}.{field['name']}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for before_, after in zip(old, new, strict=True):
            yield from _changes(before_, after, where)
    elif old != new:
        yield f"{where}: a field keeps its type"


def _unreadable(writer: dict[str, Any], reader: dict[str, Any]) -> str | None:
    """Why a reader cannot resolve the writer's schema, by letting it read a record that has something everywhere."""
    out = io.BytesIO()
    try:
        fastavro.schemaless_writer(out, fastavro.parse_schema(writer), _filled(writer))
        out.seek(0)
        fastavro.schemaless_reader(out, fastavro.parse_schema(writer), fastavro.parse_schema(reader))
    except Exception as error:  # noqa: BLE001 - fastavro raises whatever it is led into
        return f"{type(error).__name__}: {error}"[:300]
    return None


def _filled(kind: Any) -> Any:
    """A value of a type, with no union null, no collection empty and each enum at its last symbol."""
    if isinstance(kind, list):
        return _filled(kind[-1])
    name = kind if isinstance(kind, str) else kind["type"]
    if name == "record":
        return {field["name"]: _filled(field["type"]) for field in kind["fields"]}
    if name in ("array", "map"):
        return [_filled(kind["items"])] if name == "array" else {"key": _filled(kind["values"])}
    if name == "enum":
        return kind["symbols"][-1]
    return {"string": "text", "bytes": b"bytes", "boolean": True, "null": None}.get(name, 1)
