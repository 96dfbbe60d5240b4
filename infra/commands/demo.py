"""`sightstream demo`: the whole pipeline on photographs, and what it found."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.settings import Settings

if TYPE_CHECKING:
    from detectors.training.dataset import Dataset
    from infra.demo import Summary
    from schemas.records import DetectParameters, ImageRef

PHOTOS = Path(__file__).parents[1] / "demo_photos"
PICTURES = Path(__file__).parents[1] / "demo_pictures"
_ROUNDS = 20
# Of the references: what is measured and shown, and what average precision wants beside that, detections of all scores.
_BATCH, _ALL_SCORES = "demo", "demo-all-scores"
_CLASSES = 10

_LIMITS = "on an embedded broker, a demonstration's: in memory, about 5 MB a partition, one process; it ends with this command"


@click.command("demo")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Model file: .onnx, or .pt with the ultralytics extra. Else model.path, by default the detector of codes that comes with it.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Photographs; with annotations.json (COCO's format) also a score. Default: some that come with it and suit the model.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    help=f"How often each is detected. Default: 1, or {_ROUNDS} for those that come with it.",
)
@click.pass_context
def command(context: click.Context, model: Path | None, images: Path | None, rounds: int | None) -> None:
    """Detect objects in photographs, end to end, on an embedded broker: nothing to start, nothing to download."""
    settings = context.ensure_object(Settings).overriding({"model.path": model})
    folder = (images or _suitable(settings)).absolute()
    settings = _prepared(settings, folder)
    truth = _truth_of(folder)
    refs = _references(folder, rounds or (1 if images else _ROUNDS), _BATCH)

    from tqdm import tqdm

    from infra import logs
    from infra.demo import run_demo
    from schemas.records import DetectParameters

    extra = _references(folder, 1, _ALL_SCORES, DetectParameters(confidence=0.001)) if truth else ()
    logs.set_up(settings.log)
    click.echo(_LIMITS)
    with tqdm(total=len(refs) + len(extra), unit="image", desc="detecting", leave=False) as bar:
        summary = run_demo(settings, refs, bar.update, extra)
    if summary is None:
        click.echo("stopped before the end", err=True)
        context.exit(1)
    _tell(summary, settings)
    if truth:
        _tell_accuracy(truth, summary)
    _show_pictures(summary)
    if not summary.complete:
        context.exit(1)


def _suitable(settings: Settings) -> Path:
    """Pictures with something in them that the model knows: codes, or else what models of everyday objects know."""
    from detectors.spec import SHIPPED

    return PICTURES if settings.model.path == SHIPPED else PHOTOS


def _prepared(settings: Settings, folder: Path) -> Settings:
    from datetime import UTC, datetime

    lake = settings.state_dir.absolute() / "demo" / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}" / "lake"
    quiet = {"log.level": "error", "log.format": "console"}
    # Of its own in each run: an embedded broker begins at offset 0, which a lake of another run has already.
    wanted = {"images.roots": [str(folder)], "parquet.directory": lake, "parquet.max_age_s": 0.5, "kafka.prefix": ""}
    quick = {"worker.fetch_wait_ms": 20, "batching.max_batch": 32}
    return settings.defaulting(quiet | quick).overriding(wanted, "demo").checked_fully()


def _truth_of(folder: Path) -> "Dataset | None":
    from detectors.training.dataset import ANNOTATIONS, read_dataset

    return read_dataset(folder) if (folder / ANNOTATIONS).is_file() else None


def _references(
    folder: Path, rounds: int, batch: str, parameters: "DetectParameters | None" = None
) -> "Sequence[ImageRef]":
    from dataclasses import replace

    from producers.references import Batch, references
    from producers.sources import items
    from schemas.errors import ConfigurationError
    from schemas.records import DetectParameters

    photos = list(items([str(folder)]))
    if not photos:
        raise ConfigurationError(f"there are no images in {folder}")
    again = (replace(photo, name=f"{number} {photo.name}") for number in range(rounds) for photo in photos)
    return list(references(again, Batch(id=batch, parameters=parameters or DetectParameters())))


def _tell(summary: "Summary", settings: Settings) -> None:
    click.echo(
        f"images         {summary.images}: {summary.results} with results, {sum(summary.failures.values())} dead letters"
    )
    for code, count in summary.failures.items():
        click.echo(f"  {code:<20} {count}")
    ordered = sorted(summary.detections.items(), key=lambda entry: (-entry[1], entry[0]))
    click.echo(f"detections     {sum(summary.detections.values())}")
    for label, count in ordered[:_CLASSES]:
        click.echo(f"  {label:<20} {count}")
    if len(ordered) > _CLASSES:
        click.echo(f"  and {len(ordered) - _CLASSES} more classes")
    click.echo(f"throughput     {summary.images / summary.seconds:.1f} images/s with {settings.model.model_name}")
    if summary.p50_ms is not None and summary.p95_ms is not None:
        click.echo(f"latency        p50 {summary.p50_ms:.0f} ms, p95 {summary.p95_ms:.0f} ms, all published at once")
    extra = f", {summary.extra} of them at every score, for mAP50" if summary.extra else ""
    click.echo(f"Parquet        {summary.lake} ({summary.rows} rows{extra})")
    if not summary.complete:
        click.echo("not every image has its outcome in Parquet: see the log above", err=True)


def _tell_accuracy(truth: "Dataset", summary: "Summary") -> None:
    from infra.demo_report import measure, read_detections

    accuracy = measure(truth, read_detections(summary.lake, _ALL_SCORES))
    if accuracy is None:
        click.echo(
            f"mAP50          none: the model finds nothing of what the pictures' truth has: {', '.join(truth.names)}"
        )
        return
    click.echo(f"mAP50          {accuracy.map50:.3f} on {accuracy.objects} objects in {accuracy.pictures} pictures")
    for label, score in accuracy.classes.items():
        click.echo(f"  {label:<20} {score:.3f}")


def _show_pictures(summary: "Summary") -> None:
    from infra.demo_report import SHEET, draw_pictures, read_detections

    folder = summary.lake.parent / "pictures"
    if summary.rows and (count := draw_pictures(read_detections(summary.lake, _BATCH), folder)):
        click.echo(f"pictures       {folder} ({count} with boxes drawn in, and {SHEET})")
