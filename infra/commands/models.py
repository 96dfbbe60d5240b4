"""`sightstream models`: a model in other formats, whether all of them find the same, and the registry of versions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.commands import models_registry as registry
from infra.settings import Settings

if TYPE_CHECKING:
    from detectors.base import Image
    from detectors.parity import Comparison

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, file_okay=False, exists=True)
# Defects that are named one by one; the JSON has them all.
_SHOWN = 10


@click.group("models")
def command() -> None:
    """Keep versions of models for workers; export a model; check that every backend finds the same boxes."""


for _part in (registry.add, registry.list_, registry.show, registry.promote, registry.retire, registry.verify):
    command.add_command(_part)


@command.command("export")
@click.argument("model", type=_FILE)
@click.option("--to", "target", required=True, type=click.Choice(["onnx", "openvino", "tensorrt"]))
@click.option("--half", is_flag=True, help="In float16.")
@click.option("--int8", is_flag=True, help="Quantised to 8 bits, for OpenVINO only; needs --calibration.")
@click.option(
    "--calibration", type=_DIRECTORY, help="Images like those that the model is for; a fifth is only compared on."
)
@click.option(
    "--out", type=_FILE, help="Default: beside MODEL, as NAME.onnx, NAME.fp16.onnx, NAME.xml, NAME.int8.xml ..."
)
@click.option("--force", is_flag=True, help="Replace what is there.")
@click.pass_context
def export(context: click.Context, /, model: Path, half: bool, int8: bool, **given: Any) -> None:
    """Write MODEL (.pt, .onnx, .xml) in another format, and a report beside it that says whether it finds the same.

    Exit code 1: it does not, within the tolerance of its precision. The file is kept, but nothing takes it by itself.
    """
    if half and int8:
        raise click.UsageError("--half and --int8 exclude each other")
    if given["calibration"] and not int8:
        raise click.UsageError("--calibration is for --int8: nothing else is calibrated")
    from detectors.export import ExportRequest, export_model
    from detectors.parity_report import report_path

    request = ExportRequest(
        source=model,
        precision="int8" if int8 else "f16" if half else "f32",
        **given,
    )
    exported = export_model(request, context.ensure_object(Settings).images)
    click.echo(_table([exported.comparison]))
    for note in exported.report.notes:
        click.echo(note)
    click.echo(f"{exported.path}, {report_path(exported.path).name}")
    if not exported.report.holds:
        _name_defects([exported.comparison])
        context.exit(1)


@command.command("parity")
@click.argument("models", nargs=-1, required=True, type=_FILE, metavar="MODEL...")
@click.option("--images", "directory", type=_DIRECTORY, help="Compare on these, too. Default: on drawn images alone.")
@click.option("--max-images", type=click.IntRange(1), default=64, show_default=True, help="Of --images, spread evenly.")
@click.option(
    "--batch", type=click.IntRange(1), default=8, show_default=True, help="Images together, against one by one."
)
@click.option(
    "--backend", help="Only this. Default: every one that reads the file, drives the device and is installed."
)
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=["auto"],
    help="Repeatable. Default: all that a backend offers, f32 first, then what it has hardware for, and int8 of a sibling that holds.",
)
@click.option(
    "--tolerance",
    nargs=3,
    type=click.FloatRange(0, 1),
    metavar="IOU SCORE SHARE",
    help="Least overlap, greatest difference of scores, share of boxes that may be beyond. Default: by precision.",
)
@click.option("--json", "as_json", is_flag=True, help="All figures and defects as JSON.")
@click.pass_context
def parity(context: click.Context, /, models: Sequence[Path], as_json: bool, **given: Any) -> None:
    """Send the same images through every backend that is here, one by one and in batches, and compare the boxes.

    The first MODEL on its first backend in the first precision is the reference. What a backend does not offer is left out, and
    stderr says why. Exit code 1: some comparison is beyond its tolerance, or there were no boxes to compare; image, box and backend are
    named on stderr. Exit code 2: nothing was left of some MODEL.
    """
    from detectors.golden import draw_golden_images
    from detectors.parity import Tolerance
    from detectors.parity_run import check_parity, find_subjects
    from detectors.spec import ModelSpec

    images = draw_golden_images()
    if given["directory"] is not None:
        images |= _load(given["directory"], given["max_images"], context.ensure_object(Settings))
    opened = {"backend": given["backend"] or "auto", "device": given["device"]}
    specs = [
        subject
        for model in models
        for precision in given["precisions"]
        for subject in find_subjects(ModelSpec(path=str(model), precision=precision, **opened))
    ]
    left_out: dict[str, str] = {}

    def leave_out(subject: str, why: str) -> None:
        left_out[subject] = why
        click.echo(f"left out: {subject}: {why}", err=True)

    tolerance = Tolerance(*given["tolerance"]) if given["tolerance"] else None
    comparisons: list[Comparison] = []
    for comparison in check_parity(specs, images, given["batch"], tolerance, leave_out):
        if not as_json:
            click.echo(_row(comparison) if comparisons else _table([comparison]))
        comparisons.append(comparison)
    if as_json:
        click.echo(_as_json(comparisons, left_out))
    _name_defects([comparison for comparison in comparisons if not comparison.holds])
    if not all(comparison.holds for comparison in comparisons):
        context.exit(1)


def _load(directory: Path, at_most: int, settings: Settings) -> "dict[str, Image]":
    from detectors.image_files import find_images, load_files

    loaded = load_files(find_images(directory, at_most), settings.images, lambda _, image: image)
    for path, reason in loaded.missing.items():
        click.echo(f"not read: {path} ({reason})", err=True)
    return {str(path): image for path, image in loaded.kept.items()}


def tell_comparisons(comparisons: "Sequence[Comparison]") -> None:
    """A table of them, and on stderr the boxes of those that do not hold."""
    click.echo(_table(comparisons))
    _name_defects([comparison for comparison in comparisons if not comparison.holds])


def _table(comparisons: "Sequence[Comparison]") -> str:
    head = "images  boxes  excused  worst IoU  worst score  beyond  allowed  holds  what"
    return "\n".join([head, *map(_row, comparisons)])


def _row(comparison: "Comparison") -> str:
    # What it is about comes last: rows are printed as they come, when nobody knows the longest.
    allowed = int(comparison.tolerance.share * comparison.compared)
    return (
        f"{comparison.images:>6}  {comparison.compared:>5}  {comparison.excused:>7}  "
        f"{comparison.worst_iou:>9.4f}  {comparison.worst_score_drift:>11.4f}  {len(comparison.defects):>6}  "
        f"{allowed:>7}  {'yes' if comparison.holds else 'NO':<5}  {comparison.subject}"
    )


def _as_json(comparisons: "Sequence[Comparison]", left_out: Mapping[str, str]) -> str:
    from dataclasses import asdict

    return json.dumps(
        {
            "holds": all(comparison.holds for comparison in comparisons),
            "comparisons": [{"holds": comparison.holds, **asdict(comparison)} for comparison in comparisons],
            "left_out": [{"subject": subject, "why": why} for subject, why in left_out.items()],
        },
        indent=2,
    )


def _name_defects(comparisons: "Sequence[Comparison]") -> None:
    for comparison in comparisons:
        if not comparison.holds and len(comparison.defects) <= comparison.tolerance.share * comparison.compared:
            click.echo(f"{comparison.subject}: {comparison.compared} boxes are too few to compare by", err=True)
        for defect in comparison.defects[:_SHOWN]:
            box = " ".join(f"{corner:.1f}" for corner in defect.xyxy)
            drift = f", IoU {defect.iou:.4f}, score off by {defect.score_drift:.4f}" if defect.kind == "drifted" else ""
            click.echo(
                f"{comparison.subject}: {defect.image}: {defect.kind}: class {defect.class_id} at {box}, "
                f"score {defect.score:.4f}{drift}",
                err=True,
            )
        if len(comparison.defects) > _SHOWN:
            click.echo(f"{comparison.subject}: {len(comparison.defects) - _SHOWN} more", err=True)
