"""`sightstream evaluate`: a model against ground truth, by the engine that serves it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.command_values import PAIR
from infra.settings import Settings
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from detectors.base import ModelInfo
    from detectors.evaluation import Evaluation
    from detectors.evaluation_gates import Gate
    from detectors.evaluation_report import Report
    from infra.evaluation import Measured

_SHOWN = 20
_SOME_NOT_READ, _GATE_FAILED = 1, 3

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)
_SHARE = click.FloatRange(0, 1)
_OPTIONS = [
    click.option("--model", type=_FILE, help="Model file, over model.path."),
    click.option(
        "--data",
        required=True,
        type=click.Path(path_type=Path),
        metavar="FOLDER|COCO.json",
        help="Data set, a folder with annotations.json; or ground truth in COCO's format.",
    ),
    click.argument("images", required=False, type=_DIRECTORY),
    click.option("--json", "json_path", type=_FILE, help="Also write all figures there: a later --baseline."),
    click.option("--pictures", type=_DIRECTORY, help="Also draw curves, calibration and confusion into there."),
    click.option("--at", type=_SHARE, help="Score for precision, recall, confusion. Default: where F1 is best."),
    click.option("--threshold-for", type=PAIR, metavar="precision=SHARE", help="Say the lowest score that reaches it."),
    click.option(
        "--min",
        "least",
        multiple=True,
        metavar="METRIC[.CLASS][@SLICING=SLICE]=VALUE",
        help="Fail below it: map50=0.9, map50_95, precision, recall, f1; recall.qr=0.8, map50@size=small=0.7. Repeatable.",
    ),
    click.option("--baseline", type=_FILE, help="Compare with figures that --json wrote, on the same annotations."),
    click.option("--max-regression", type=_SHARE, help="Fail if an mAP, of all or of a class, fell by more."),
    click.option("--confidence", type=_SHARE, default=0.001, show_default=True),
    click.option("--iou", type=_SHARE, help="Of suppression. Default: the model's own."),
    click.option("--max-det", type=click.IntRange(1), default=300, show_default=True),
    click.option("--device", help="Over model.device."),
    click.option("--precision", help="Over model.precision."),
    click.option("--backend", help="Over model.backend."),
    click.option("--allow-missing", is_flag=True, help="Exit code 0 although images could not be read."),
]


def _options(function: Any) -> Any:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command("evaluate")
@_options
@click.pass_context
def command(context: click.Context, /, json_path: Path | None, pictures: Path | None, **given: Any) -> None:
    """Measure a model on images with ground truth: mAP, precision and recall, slices, confusion, calibration.

    IMAGES: their directory, if it is neither beside the annotations nor images/ there. They go through the loader and the detector that a
    worker has. One that cannot be read is left out, named on stderr, and makes the exit code 1 unless --allow-missing, as the figures
    then are not those of the whole set. Exit code 3: what --min or --max-regression asks for is not reached.
    """
    settings = context.ensure_object(Settings).overriding(
        {f"model.{name}": given[name] for name in ("device", "precision", "backend")}
        | {"model.path": given["model"] and str(given["model"])}
    )
    _check_places(given, json_path, pictures)
    from detectors.evaluation_gates import parse_gate
    from detectors.evaluation_report import read_baseline, write_report
    from infra.evaluation import find_data, measure
    from schemas.records import DetectParameters

    data = find_data(given["data"], given["images"])
    gates = [parse_gate(text, data.truth.categories.values()) for text in given["least"]]
    baseline = read_baseline(given["baseline"], data.truth) if given["baseline"] else None
    wanted = DetectParameters(confidence=given["confidence"], iou=given["iou"], max_detections=given["max_det"])
    measured = measure(settings, data, wanted, given["at"])
    _say(measured)
    report = measured.report
    if given["threshold_for"] is not None:
        report["threshold"] = _say_threshold(measured.evaluation, _precision_of(given))
    report["failures"] = failures = _judge(report, gates, baseline, given["max_regression"])
    if json_path is not None:
        write_report(report, json_path)
    if pictures is not None:
        from detectors.evaluation_picture import draw_pictures

        draw_pictures(measured.evaluation, _name(measured.model), pictures)
    if failures:
        context.exit(_GATE_FAILED)
    if measured.missing and not given["allow_missing"]:
        context.exit(_SOME_NOT_READ)


def _check_places(given: Mapping[str, Any], json_path: Path | None, pictures: Path | None) -> None:
    """What would fail after minutes of work fails now."""
    if given["images"] is not None and not given["images"].is_dir():
        raise ConfigurationError(f"there is no directory {given['images']}")
    for path in filter(None, (json_path, pictures)):
        if not path.absolute().parent.is_dir():
            raise click.UsageError(f"there is no directory {path.absolute().parent}")
    if given["max_regression"] is not None and given["baseline"] is None:
        raise click.UsageError("--max-regression needs a --baseline to compare with")
    if given["threshold_for"] is not None:
        _precision_of(given)
    if pictures is not None:
        from detectors.evaluation_picture import import_matplotlib

        import_matplotlib()


def _precision_of(given: Mapping[str, Any]) -> float:
    name, text = given["threshold_for"]
    if name != "precision":
        raise click.BadParameter(f"{name!r} is not precision", param_hint="--threshold-for")
    return float(_SHARE.convert(text, None, None))


def _say(measured: "Measured") -> None:
    from infra.evaluation_text import tell_classes, tell_confusion, tell_slices

    for warning in measured.warnings:
        click.echo(f"warning: {warning}", err=True)
    missing = [f"{path} ({reason})" for path, reason in measured.missing.items()]
    for line in missing[:_SHOWN]:
        click.echo(f"not read: {line}", err=True)
    if len(missing) > _SHOWN:
        click.echo(f"not read: {len(missing) - _SHOWN} more", err=True)
    click.echo(_name(measured.model))
    tables = (tell(measured.evaluation) for tell in (tell_classes, tell_slices, tell_confusion))
    click.echo("\n\n".join(filter(None, tables)))


def _name(model: "ModelInfo") -> str:
    return f"{model.name} on {model.backend}, {model.precision}, {model.device}"


def _say_threshold(evaluation: "Evaluation", precision: float) -> dict[str, float] | None:
    """What was found, for the report; None where no score reaches it."""
    from dataclasses import asdict

    from detectors.evaluation_threshold import confidence_for_precision

    found = confidence_for_precision(evaluation.matches, precision)
    if found is None:
        click.echo(f"\nno confidence reaches precision {precision:g}")
        return None
    click.echo(
        f"\nprecision {precision:g} is reached from confidence {found.confidence:.4f} on: recall {found.recall:.4f}"
    )
    return asdict(found)


def _judge(report: "Report", gates: "Sequence[Gate]", baseline: "Report | None", most: float | None) -> list[str]:
    """What fails, said on stderr."""
    from detectors.evaluation_gates import check_gates, check_regression, compare
    from infra.evaluation_text import tell_differences

    failures = check_gates(report, gates)
    if baseline is not None:
        differences = compare(report, baseline)
        click.echo(f"\n{tell_differences(differences)}")
        failures += [] if most is None else check_regression(differences, most)
    for failure in failures:
        click.echo(f"failed: {failure}", err=True)
    return failures
