"""`sightstream evaluate`: a model against ground truth, by the engine that serves it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.settings import Settings
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from detectors.base import Detector, ModelInfo
    from detectors.evaluation import Evaluation
    from detectors.evaluation_run import Predictions

_SHOWN = 20
_PICTURES = (".png", ".svg", ".pdf")

_FILE = click.Path(path_type=Path, dir_okay=False)
_OPTIONS = [
    click.option("--model", type=_FILE, help="Model file, over model.path."),
    click.option(
        "--data",
        nargs=2,
        required=True,
        type=(click.Path(path_type=Path, dir_okay=False), click.Path(path_type=Path, file_okay=False)),
        metavar="COCO.json DIR",
        help="Ground truth in COCO's format, and the directory of its images.",
    ),
    click.option("--json", "json_path", type=_FILE, help="Also write all figures there."),
    click.option("--picture", type=_FILE, help="Also draw precision-recall curves there (.png, .svg, .pdf)."),
    click.option(
        "--at", type=click.FloatRange(0, 1), help="Score for precision and recall. Default: where F1 is best."
    ),
    click.option("--confidence", type=click.FloatRange(0, 1), default=0.001, show_default=True),
    click.option("--iou", type=click.FloatRange(0, 1), default=0.7, show_default=True, help="Of suppression."),
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
def command(context: click.Context, /, json_path: Path | None, picture: Path | None, **given: Any) -> None:
    """Measure a model on images with ground truth: mAP, precision and recall, calibration.

    Images go through the loader and the detector that a worker has. One that cannot be read is left out, named on stderr, and makes
    the exit code 1 unless --allow-missing, as the figures then are not those of the whole set.
    """
    settings = context.ensure_object(Settings).overriding(
        {f"model.{name}": given[name] for name in ("device", "precision", "backend")}
        | {"model.path": given["model"] and str(given["model"])}
    )
    annotations, directory = given["data"]
    _check_places(directory, json_path, picture)
    from detectors.evaluation import evaluate
    from detectors.evaluation_truth import match_classes, read_truth
    from detectors.registry import open_detector
    from infra.wiring import ENGINE

    truth = read_truth(annotations)
    detector = open_detector(settings.model, settings.state_dir / ENGINE)
    try:
        model = detector.model
        classes = match_classes(model.labels, truth.categories)
        files = {image_id: directory / name for image_id, name in truth.files.items()}
        predictions = _predict(settings, detector, files, given)
    finally:
        detector.close()
    evaluation = evaluate(truth, predictions.image_ids, predictions.boxes, classes, given["at"])
    _say_what_to_know(classes.warnings, predictions)
    click.echo(f"{model.name} on {model.backend}, {model.precision}, {model.device}")
    click.echo(_table(evaluation))
    if json_path is not None:
        report = _report(model, evaluation, predictions, classes.warnings)
        json_path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if picture is not None:
        from detectors.evaluation_picture import draw_curves

        draw_curves(evaluation, f"{model.name}, {model.backend}, {model.precision}", picture)
    if predictions.missing and not given["allow_missing"]:
        context.exit(1)


def _check_places(directory: Path, json_path: Path | None, picture: Path | None) -> None:
    """What would fail after minutes of work fails now."""
    if not directory.is_dir():
        raise ConfigurationError(f"there is no directory {directory}")
    for path in filter(None, (json_path, picture)):
        if not path.absolute().parent.is_dir():
            raise click.UsageError(f"there is no directory {path.absolute().parent}")
    if picture is not None:
        from detectors.evaluation_picture import import_matplotlib

        if picture.suffix.lower() not in _PICTURES:
            raise click.UsageError(f"{picture} should end in one of {', '.join(_PICTURES)}")
        import_matplotlib()


def _predict(
    settings: Settings, detector: "Detector", files: Mapping[int, Path], given: dict[str, Any]
) -> "Predictions":
    import sys

    from tqdm import tqdm

    from detectors.evaluation_run import predict
    from schemas.records import DetectParameters

    wanted = DetectParameters(confidence=given["confidence"], iou=given["iou"], max_detections=given["max_det"])
    with tqdm(total=len(files), unit="img", desc="evaluating", file=sys.stderr, disable=None, leave=False) as bar:
        return predict(detector, files, settings.images, wanted, bar.update)


def _say_what_to_know(warnings: Sequence[str], predictions: "Predictions") -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    missing = [f"{path} ({reason})" for path, reason in predictions.missing.items()]
    for line in missing[:_SHOWN]:
        click.echo(f"not read: {line}", err=True)
    if len(missing) > _SHOWN:
        click.echo(f"not read: {len(missing) - _SHOWN} more", err=True)


def _table(evaluation: "Evaluation") -> str:
    shown = [score for score in evaluation.classes if score.objects]
    width = max(len("all classes"), *(len(score.label) for score in shown), 0)
    head = f"{'class':<{width}}  {'objects':>8}  {'mAP50-95':>8}  {'mAP50':>8}  {'precision':>9}  {'recall':>8}"
    figures = [
        (score.label, score.objects, score.map50_95, score.map50, score.precision, score.recall) for score in shown
    ]
    total = evaluation
    figures.append(("all classes", total.objects, total.map50_95, total.map50, total.precision, total.recall))
    rows = [
        f"{name:<{width}}  {objects:>8}  {_number(strict):>8}  {_number(loose):>8}  {_number(precision):>9}  {_number(recall):>8}"
        for name, objects, strict, loose, precision, recall in figures
    ]
    calibration = evaluation.calibration
    below = (
        f"{total.images} images; precision and recall at confidence {total.confidence:.3f}, F1 {total.f1:.3f}; "
        f"calibration error {_number(calibration.error)} above {calibration.floor}"
    )
    return "\n".join([head, *rows, below])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _report(
    model: "ModelInfo", evaluation: "Evaluation", predictions: "Predictions", warnings: Sequence[str]
) -> dict[str, Any]:
    """All figures, in types that JSON has."""
    from dataclasses import asdict

    figures = asdict(evaluation)
    figures["classes"] = [
        {**score, "curve": [round(float(value), 5) for value in score["curve"]]} for score in figures["classes"]
    ]
    names = ("detections", "mean_score", "share_correct")
    figures["calibration"]["bins"] = [dict(zip(names, entry, strict=True)) for entry in figures["calibration"]["bins"]]
    described = {name: value for name, value in asdict(model).items() if name != "labels"}
    missing = {str(path): reason for path, reason in predictions.missing.items()}
    return {"model": described, **figures, "missing": missing, "warnings": list(warnings)}
