"""`sightstream data check`: whether a data set is fit to train on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.commands.data_options import NEAR
from infra.commands.data_tables import align
from infra.progress import progress
from infra.settings import Settings

if TYPE_CHECKING:
    from detectors.training.findings import CheckReport

# Findings of a kind that are named one by one; the JSON has them all.
_SHOWN = 10


@click.command("check")
@click.argument("source", metavar="DATASET", type=click.Path(path_type=Path, exists=True))
@NEAR
@click.option(
    "--tiny",
    "tiny_px",
    type=click.FloatRange(0),
    default=4.0,
    show_default=True,
    metavar="PX",
    help="Shortest side of a box that is not tiny.",
)
@click.option(
    "--imbalance",
    type=click.FloatRange(1),
    default=20.0,
    show_default=True,
    metavar="RATIO",
    help="Of the most frequent class to the rarest.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write all findings here.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.pass_context
def command(context: click.Context, /, source: Path, json_path: Path | None, strict: bool, **given: Any) -> None:
    """Look for what spoils a model or its figures in DATASET: a data set, or a folder with train/, val/, test/.

    Errors: pictures that are missing, do not decode or have another size than their labels say; boxes that are empty or beyond the frame;
    a picture twice with different labels; the same or nearly the same picture in two splits. Warnings: tiny and double boxes, double
    pictures, classes that are rare or unused. Exit code 1 where there are errors.
    """
    from detectors.training.checking import check_dataset
    from detectors.training.findings import CheckPolicy
    from detectors.training.folders import read_splits

    if json_path is not None and not json_path.absolute().parent.is_dir():
        raise click.UsageError(f"there is no directory {json_path.absolute().parent}")
    splits = read_splits(source)
    images = context.ensure_object(Settings).images
    with progress("checking", sum(len(dataset.pictures) for dataset in splits.values())) as watch:
        report = check_dataset(splits, CheckPolicy(**given), images, watch)
    if json_path is not None:
        _write(json_path, _as_json(report))
    click.echo(_table(report))
    _name_findings(report)
    if report.errors or (strict and report.findings):
        context.exit(1)


def _table(report: "CheckReport") -> str:
    rows = [
        ["", *(split or "all" for split in report.pictures)],
        ["pictures", *(f"{count:,}" for count in report.pictures.values())],
        ["without objects", *(f"{count:,}" for count in report.without_objects.values())],
    ]
    names: Mapping[str, int] = next(iter(report.objects.values()))
    rows += [[name, *(f"{objects[name]:,}" for objects in report.objects.values())] for name in names]
    warnings = len(report.findings) - report.errors
    return f"{align(rows)}\nerrors: {report.errors:,}, warnings: {warnings:,}"


def _name_findings(report: "CheckReport") -> None:
    """Errors first; of each kind the first few."""
    from detectors.training.findings import ERRORS

    for kind in sorted(report.counts, key=lambda kind: (kind not in ERRORS, kind)):
        level = "error" if kind in ERRORS else "warning"
        found = [finding for finding in report.findings if finding.kind == kind]
        for finding in found[:_SHOWN]:
            click.echo(f"{level}: {finding}", err=True)
        if len(found) > _SHOWN:
            click.echo(f"{level}: {kind}: {len(found) - _SHOWN:,} more; --json has them all", err=True)


def _as_json(report: "CheckReport") -> str:
    findings = [
        {
            "kind": finding.kind,
            "level": "error" if finding.is_error else "warning",
            "split": finding.split,
            "files": [str(file) for file in finding.files],
            "what": finding.what,
        }
        for finding in report.findings
    ]
    summary = {
        "errors": report.errors,
        "warnings": len(report.findings) - report.errors,
        "pictures": report.pictures,
        "without_objects": report.without_objects,
        "objects": report.objects,
        "counts": report.counts,
    }
    return json.dumps({**summary, "findings": findings}, indent=2) + "\n"


def _write(path: Path, text: str) -> None:
    from schemas.errors import ConfigurationError

    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
