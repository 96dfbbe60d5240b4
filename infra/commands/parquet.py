"""`sightstream parquet`: look after a lake of Parquet files."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sinks.parquet_verify import LakeReport

_COLUMNS = ("topic", "partition", "from", "up to", "claims", "files", "rows", "duplicates dropped")


@click.group("parquet")
def command() -> None:
    """Look after a lake of Parquet files."""


@command.command("verify")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
def verify(directory: Path) -> None:
    """Prove that DIRECTORY has no gap, no overlap, no torn file and no result twice; exit code 1 names what is wrong."""
    from sinks.parquet_verify import verify as examine

    report = examine(directory)
    click.echo(_table(report))
    for line in report.pending:
        click.echo(f"pending: {line}; its partition's next owner finishes it")
    for line in report.violations:
        click.echo(f"violation: {line}", err=True)
    if not report.chains and not report.violations:
        click.echo("no claim log: not a lake, or an empty one")
    click.echo("FAIL" if report.violations else "PASS")
    sys.exit(1 if report.violations else 0)


def _table(report: "LakeReport") -> str:
    rows = [
        (c.partition.topic, c.partition.index, c.start, c.next, c.claims, c.files, c.rows, c.duplicates)
        for c in report.chains
    ]
    cells = [_COLUMNS, *(tuple(f"{value:,}" if isinstance(value, int) else value for value in row) for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if not at else cell.rjust(w) for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
