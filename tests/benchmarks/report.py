"""What a benchmark found: printed, kept as JSON, and put into the Markdown page between its marks."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What was hoped for and what was measured."""

    what: str
    measured: float
    wanted: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted

    def __str__(self) -> str:
        bound = "at least" if self.at_least else "at most"
        verdict = "met" if self.met else "NOT met"
        return f"{self.what}: {_number(self.measured)}, wanted {bound} {_number(self.wanted)}: {verdict}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One benchmark's findings.

    `how` says what was done; `measured` when, and how busy the machine was before; `figures` is for machines; `picture` is a file in the
    pictures' folder.
    """

    name: str
    title: str
    how: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    targets: Sequence[Target] = ()
    picture: str | None = None
    measured: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """For a terminal."""
        lines = [self.title, *_table(self.columns, self.rows), *(f"  {target}" for target in self.targets)]
        return "\n".join(lines)

    def markdown(self) -> str:
        """For the page."""
        head = ["| " + " | ".join(self.columns) + " |", "|" + " --- |" * len(self.columns)]
        rows = ["| " + " | ".join(row) + " |" for row in self.rows]
        targets = [f"- {target}" for target in self.targets]
        picture = [f"![{self.title}](pictures/{self.picture})"] if self.picture else []
        how = [self.how, f"Measured {self.measured}."] if self.measured else [self.how]
        blocks = [[f"## {self.title}"], how, [*head, *rows], targets, picture]
        return "\n\n".join("\n".join(block) for block in blocks if block)


def keep(sections: Sequence[Section], machine: Mapping[str, str], path: Path) -> None:
    """Write the figures as JSON; sections that were not run this time keep what they had."""
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {"sections": {}}
    kept["machine"] = dict(machine)
    for section in sections:
        kept["sections"][section.name] = {**asdict(section), "at": now()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


def publish(sections: Sequence[Section], machine: Mapping[str, str], page: Path) -> None:
    """Replace what stands between the marks of each section; a mark that is missing is added at the end."""
    text = page.read_text("utf-8") if page.exists() else "# Benchmarks\n"
    told = "\n".join(f"- {name}: {value}" for name, value in {"latest run": now(), **machine}.items())
    text = _replace(text, "machine", told)
    for section in sections:
        text = _replace(text, section.name, section.markdown())
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, "utf-8")


def now() -> str:
    """The time as reports give it."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _replace(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- measured: {name} -->", f"<!-- end: {name} -->"
    block = f"{begin}\n{content}\n{end}"
    if begin not in text:
        return f"{text.rstrip()}\n\n{block}\n"
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: block, text, count=1, flags=re.DOTALL)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in [columns, *rows]) for at in range(len(columns))]
    return [
        "  " + "  ".join(cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in cells).rstrip()
        for cells in (enumerate(zip(row, widths, strict=True)) for row in [columns, *rows])
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
