"""`sightstream demo`: the whole pipeline on photographs, and what it found."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.settings import Settings

if TYPE_CHECKING:
    from infra.demo import Summary
    from schemas.records import ImageRef

PHOTOS = Path(__file__).parents[1] / "demo_photos"
_ROUNDS = 20
_CLASSES = 10

_LIMITS = "on an embedded broker, a demonstration's: in memory, about 5 MB a partition, one process; it ends with this command"


@click.command("demo")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Model file: .onnx, or .pt with the ultralytics extra. Else model.path.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Photographs. Default: six that come with it.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    help=f"How often each is detected. Default: 1, or {_ROUNDS} for those that come with it.",
)
@click.pass_context
def command(context: click.Context, model: Path | None, images: Path | None, rounds: int | None) -> None:
    """Detect objects in photographs, end to end, on an embedded broker: nothing to start, nothing to download."""
    settings = context.ensure_object(Settings)
    folder = (images or PHOTOS).absolute()
    settings = _prepared(settings.overriding({"model.path": model}), folder)
    refs = _references(folder, rounds or (1 if images else _ROUNDS))

    from tqdm import tqdm

    from infra import logs
    from infra.demo import run_demo

    logs.set_up(settings.log)
    click.echo(_LIMITS)
    with tqdm(total=len(refs), unit="image", desc="detecting", leave=False) as bar:
        summary = run_demo(settings, refs, bar.update)
    if summary is None:
        click.echo("stopped before the end", err=True)
        context.exit(1)
    _tell(summary, settings)
    if not summary.complete:
        context.exit(1)


def _prepared(settings: Settings, folder: Path) -> Settings:
    from datetime import UTC, datetime

    lake = settings.state_dir.absolute() / "demo" / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    quiet = {"log.level": "error", "log.format": "console"}
    # Of its own in each run: an embedded broker begins at offset 0, which a lake of another run has already.
    wanted = {"images.roots": [str(folder)], "parquet.directory": lake, "parquet.max_age_s": 0.5, "kafka.prefix": ""}
    quick = {"worker.fetch_wait_ms": 20, "batching.max_batch": 32}
    return settings.defaulting(quiet | quick).overriding(wanted, "demo").checked_fully()


def _references(folder: Path, rounds: int) -> "Sequence[ImageRef]":
    from dataclasses import replace

    from producers.references import Batch, references
    from producers.sources import items
    from schemas.errors import ConfigurationError

    photos = list(items([str(folder)]))
    if not photos:
        raise ConfigurationError(f"there are no images in {folder}")
    again = (replace(photo, name=f"{number} {photo.name}") for number in range(rounds) for photo in photos)
    return list(references(again, Batch(id="demo")))


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
    click.echo(f"Parquet        {summary.lake} ({summary.rows} rows)")
    if not summary.complete:
        click.echo("not every image has its outcome in Parquet: see the log above", err=True)
