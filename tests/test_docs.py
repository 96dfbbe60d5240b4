"""What the documents name exists: tests, files, commands and settings."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.cli import COMMANDS
from tests.support.data import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def functions_in(path: Path) -> set[str]:
    """Names of the test functions and of the state machines' test cases of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def named_tests() -> Iterator[tuple[str, str | None]]:
    text = (ROOT / "docs" / "delivery.md").read_text(encoding="utf-8")
    for path, _, name in re.findall(r"`(tests/[\w/]+\.py)(::(\w+))?`", text):
        yield path, name or None


@pytest.mark.parametrize(("path", "name"), sorted(set(named_tests()), key=str))
def test_every_test_that_delivery_names_exists(path: str, name: str | None) -> None:
    file = ROOT / path
    assert file.is_file(), path
    names = functions_in(file)
    assert (
        name in names if name else any(found.startswith("test_") for found in names) or "TestCase" in file.read_text()
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_exists(document: Path) -> None:
    named = set(
        re.findall(r"(?:^|`|&& )sightstream ([a-z][a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert named <= set(COMMANDS) | {"is"}
