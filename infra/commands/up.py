"""`sightstream up`: everything in one process - broker if wanted, worker, sinks, gateway - until a signal ends it."""

from pathlib import Path

import click

from infra.settings import Settings


@click.command("up")
@click.option(
    "--kafka",
    default="embedded",
    show_default=True,
    metavar="embedded|local|settings|HOST:PORT",
    help="embedded: in memory, ends with this. local: as by `sightstream broker start`. settings: kafka.bootstrap.",
)
@click.option(
    "--model", type=click.Path(path_type=Path), help="Model file (.onnx, .xml, .pt, .pth, .engine). Else model.path."
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory that file: references may name.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="The lake. Else parquet.directory.",
)
@click.option("--port", type=click.IntRange(0, 65535), help="Of HTTP, over http.port; 0 takes a free one.")
@click.pass_obj
def command(
    settings: Settings, kafka: str, model: Path | None, images: Path | None, directory: Path | None, port: int | None
) -> None:
    """Run broker, worker, Parquet sink, result store and gateway in one process. Ctrl-C or SIGTERM drains and exits 0."""
    from functools import partial

    from infra import logs
    from infra.runtime import run_process
    from infra.up import kafka_for, run_everything
    from infra.wiring import own_detector

    wanted = {"model.path": model, "parquet.directory": directory, "http.port": port}
    roots = {"images.roots": [str(images.absolute())] if images else None}
    settings = settings.overriding(wanted | roots).checked_fully()
    logs.set_up(settings.log)
    with own_detector(settings) as detector, kafka_for(settings, kafka) as ready:
        run_process(partial(run_everything, ready, detector, click.echo), settings.general.grace_s)
