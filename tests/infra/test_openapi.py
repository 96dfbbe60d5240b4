"""The OpenAPI document: sound in itself, and the same as the code."""

import ast
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from schemas.problems import ProblemError
from tests.support.contract import check_value, deref, document
from tests.support.data import ROOT

OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in document()["paths"].items()
    for method, operation in operations.items()
    if method != "parameters"
]
_NAMED_IN_TEXT = {"StreamMessages", "StreamSubscription", "method_not_allowed", "internal_error"}
# What a client says to its own program: no server answers it.
_OF_CLIENTS = {"stream_silent"}


def test_it_is_openapi_3_1() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(document()).iter_errors()] == []
    names = [operation["operationId"] for *_, operation in OPERATIONS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_examples_are_as_their_schemas_say(method: str, path: str, operation: dict[str, Any]) -> None:
    for where, media in _media(operation):
        for name, example in media.get("examples", {}).items():
            check_value(media["schema"], deref(example)["value"], f"{method} {path} {where} {name}")


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_error_says_which_problems_it_may_be(method: str, path: str, operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        if status >= "400":
            media = deref(response)["content"]["application/problem+json"]
            examples = {name: deref(example)["value"] for name, example in media["examples"].items()}
            assert examples
            assert {name: (example["code"], example["status"]) for name, example in examples.items()} == {
                name: (name, int(status)) for name in examples
            }, f"{method} {path} {status}"


def test_everything_named_is_used() -> None:
    text = str(document())
    for kind, members in document()["components"].items():
        if kind == "securitySchemes":
            continue
        unused = {name for name in members if f"#/components/{kind}/{name}'" not in text}
        assert unused <= _NAMED_IN_TEXT, kind


def test_problem_codes_are_those_that_the_code_raises() -> None:
    listed = set(document()["components"]["schemas"]["ProblemCode"]["enum"])
    statuses = {
        name: deref(example)["value"].get("status") for name, example in document()["components"]["examples"].items()
    }
    raised = {(status, code) for status, code in _raised() if code not in _OF_CLIENTS}
    assert {code for _, code in raised} <= listed, "a code that the document does not know"
    assert {(status, code) for status, code in raised if statuses[code] != status} == set(), (
        "another status than documented"
    )
    assert listed == {name for name, status in statuses.items() if isinstance(status, int)}, "each code has an example"


def test_the_document_of_a_problem_is_a_problem() -> None:
    problem = ProblemError(413, "image_too_large", "an image has at most 7 bytes", 1.0, {"most": 7}).document("r1")
    check_value({"$ref": "#/components/schemas/Problem"}, problem)


def _media(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, media in operation.get("requestBody", {}).get("content", {}).items():
        yield f"request {name}", media
    for status, response in operation["responses"].items():
        for name, media in deref(response).get("content", {}).items():
            yield f"{status} {name}", media


def _raised() -> Iterator[tuple[int, str]]:
    """(status, code) of every ProblemError that the packages make with both written out."""
    for package in ("schemas", "producers", "sinks", "streams", "infra"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and _name(node.func).endswith("ProblemError") and len(node.args) >= 2:
                    status, code = _status(node.args[0]), node.args[1]
                    if status is not None and isinstance(code, ast.Constant):
                        yield status, str(code.value)


def _status(node: ast.expr) -> int | None:
    if isinstance(node, ast.Constant):
        return int(str(node.value))
    if isinstance(node, ast.Attribute) and _name(node.value) == "HTTPStatus":
        from http import HTTPStatus

        return int(HTTPStatus[node.attr])
    return None


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
