"""The OpenAPI document as a judge: whether an answer is one of those it promises."""

import copy
import json
import re
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

_URI = "urn:contract"
_ANYWHERE = {405: "method_not_allowed", 500: "internal_error"}


@cache
def document() -> dict[str, Any]:
    """The document as it ships."""
    shipped: dict[str, Any] = json.loads(resources.files("infra").joinpath("openapi.json").read_text("utf-8"))
    return shipped


def check_answer(method: str, path: str, status: int, content_type: str, body: bytes) -> None:
    """Raise AssertionError unless the document says that this may be answered there, to the last member of its JSON."""
    where = f"{method} {path} -> {status}"
    operation = _operation(method, path)
    assert operation is not None, f"{where}: not in the document"
    response = operation["responses"].get(str(status)) or document()["components"]["responses"].get(
        _ANYWHERE.get(status)
    )
    assert response is not None, f"{where}: this status is not in the document: {body[:300]!r}"
    response = deref(response)
    content = response.get("content", {})
    if not content:
        assert not body, f"{where}: a body where none is promised"
        return
    assert content_type in content, f"{where}: {content_type} is not in the document: {body[:300]!r}"
    if content_type.endswith("json"):
        answer = json.loads(body)
        check_value(content[content_type]["schema"], answer, where)
        if status >= 400:
            assert answer["code"] in content[content_type]["examples"], (
                f"{where}: {answer['code']} is not in the document"
            )


def check_value(schema: dict[str, Any], value: object, where: str = "") -> None:
    """Raise AssertionError unless the value is what a schema of the document says, without any member that it does not name."""
    validator = Draft202012Validator(
        _absolute(schema), registry=_registry(), format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    errors = [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in validator.iter_errors(value)
    ]
    assert not errors, f"{where}: {errors}"


def deref(node: dict[str, Any]) -> dict[str, Any]:
    """A node of the document, or what it refers to."""
    if "$ref" not in node:
        return node
    found: Any = document()
    for name in node["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return deref(found)


@cache
def _registry() -> Registry[Any]:
    closed = _closed(copy.deepcopy(document()))
    empty: Registry[Any] = Registry()
    filled: Registry[Any] = empty.with_resource(_URI, DRAFT202012.create_resource(closed))
    return filled


def _closed(node: Any) -> Any:
    """Objects that name their members have no others; in the document they may, for clients are to bear new ones."""
    if isinstance(node, dict):
        if node.get("type") == "object" and "properties" in node:
            node.setdefault("additionalProperties", False)
        for value in node.values():
            _closed(value)
    elif isinstance(node, list):
        for value in node:
            _closed(value)
    return node


def _absolute(schema: dict[str, Any]) -> dict[str, Any]:
    """With references into the document, wherever the schema stands."""
    replaced: dict[str, Any] = json.loads(json.dumps(_closed(copy.deepcopy(schema))).replace('"#/', f'"{_URI}#/'))
    return replaced


def _operation(method: str, path: str) -> dict[str, Any] | None:
    """A path without parameters goes before one with."""
    for template, operations in sorted(document()["paths"].items(), key=lambda item: "{" in item[0]):
        if re.fullmatch(re.sub(r"\{[a-z]+\}", "[^/]+", template), path):
            operation: dict[str, Any] | None = operations.get(method.lower())
            return operation
    return None
