"""`sightstream package`: a trained network as files that can be served and registered."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.settings import Settings
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from detectors.training.package import Package

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.command("package")
@click.argument("source", metavar="RUN|CHECKPOINT", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=_DIRECTORY, help="Folder for model, card and manifest.")
@click.option("--name", help="Of the model and its files. Default: that of the run's folder.")
@click.option("--version", "version", default="", help="Default: the first digits of the model's digest.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Data set, not trained on, to choose the threshold by and to compare backends on.",
)
@click.option(
    "--threshold-precision",
    "precision",
    type=click.FloatRange(0, 1),
    help="Share of what is detected in --data that is to be right. Default: where F1 is best.",
)
@click.option("--confidence", type=click.FloatRange(0, 1), help="The threshold itself: none is chosen.")
@click.option(
    "--iou",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="Boxes of a class that overlap more: one is kept.",
)
@click.option(
    "--report", type=_FILE, help="What `evaluate --json` wrote of the packaged model: metrics for card and manifest."
)
@click.option("--int8", is_flag=True, help="Also an 8-bit sibling for OpenVINO; needs --calibration.")
@click.option("--calibration", type=_DIRECTORY, help="Pictures like those that the model is for.")
@click.option("--licence", default="", help="Of the model: Apache-2.0, say.")
@click.option("--about", type=_FILE, help="Markdown for the card: what it is for, its limits, how to make it again.")
@click.pass_context
def command(context: click.Context, /, source: Path, name: str | None, int8: bool, **given: Any) -> None:
    """Export a trained network to ONNX, with its decoding inside, and write what belongs to it.

    The file is held against torch, and every backend that is here against the others; exit code 1: one finds something else, or there
    were too few boxes to say. The files are kept. Metrics come by evaluating the packaged model and packaging again with --report: the
    same network gives the same bytes.
    """
    if int8 != (given["calibration"] is not None):
        raise click.UsageError("--int8 and --calibration DIR go together")
    if not source.exists():
        raise ConfigurationError(f"there is no run or checkpoint {source}")
    from detectors.torch_environment import calm_threads

    calm_threads()
    try:
        from detectors.training.package import PackageRequest, package_model
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"packaging needs {error.name}, which is not installed: pip install 'sightstream[training]'"
        ) from error
    run = source if source.is_dir() else source.absolute().parent
    request = PackageRequest(source=source, name=name or run.absolute().name, **given)
    package = package_model(request, context.ensure_object(Settings).images, lambda line: click.echo(line, err=True))
    _tell(package)
    if not package.holds:
        context.exit(1)


def _tell(package: "Package") -> None:
    from infra.commands.models import tell_comparisons

    manifest, threshold = package.manifest, package.manifest.threshold
    tell_comparisons(package.comparisons)
    if threshold is not None and threshold.precision is not None and threshold.recall is not None:
        click.echo(
            f"threshold {threshold.confidence:g}: precision {threshold.precision:.4f}, recall {threshold.recall:.4f} on "
            f"{threshold.images} pictures"
        )
    click.echo(f"{package.folder / manifest.name}.onnx, {manifest.parameters:,} parameters, {manifest.digest}")
