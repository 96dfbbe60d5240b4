"""What the documents name exists: tests, files, commands and settings."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from infra import drift, judging, publishing, services
from infra.cli import COMMANDS
from infra.http import edge
from infra.setting_values import names_of
from infra.settings import SECTIONS, section_type
from schemas.topics import Topics
from tests.support.command_lines import parse
from tests.support.data import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPERATIONS = ROOT / "docs" / "operations.md"
SETTINGS = {name for section in SECTIONS for name in names_of(section, section_type(section))}
TOPICS = {topic.name for topic in Topics().catalogue()}


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


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def command_lines() -> Iterator[str]:
    for document in DOCUMENTS:
        for block in blocks(document, "sh"):
            lines = (line.partition("#")[0].removesuffix("&").strip() for line in block.splitlines())
            yield from (line for line in lines if line.startswith("sightstream "))


def test_there_are_command_lines() -> None:
    assert len(list(command_lines())) >= 5


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_every_command_line_is_one_that_the_command_takes(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for directory in ("photos", "lake", "labels", "labelled", "shelf"):  # which the lines name
        (tmp_path / directory).mkdir()
    assert parse(shlex.split(line)[1:]).callback is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_][a-z_.]*)`", text))
    assert named - TOPICS <= SETTINGS


def test_the_table_of_metrics_names_all_that_a_process_exposes_and_no_other() -> None:
    assert all((drift, edge, judging, publishing, services))  # imported, with every module that has metrics
    exposed = {
        f"{metric.name}{'_total' if metric.type == 'counter' else '_info' if metric.type == 'info' else ''}"
        for metric in REGISTRY.collect()
        if metric.name.startswith("sightstream_")
    }
    table = OPERATIONS.read_text(encoding="utf-8").partition("| metric")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    named = {f"sightstream_{name}" for row in rows for name in re.findall(r"`([a-z_]+)", row)}
    assert named == exposed
