"""`sightstream worker`: one stream worker with its health and metrics."""

from pathlib import Path

import click

from infra.settings import Settings

PORT = 8090  # beside a notifier, which has 8080, on one machine


@click.command("worker")
@click.option(
    "--model",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Model file (.onnx, .xml, .pt, .pth, .engine), over model.path.",
)
@click.option("--device", help="Device of the model, over model.device.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=f"Of health and metrics, over http.port (which is {PORT} here unless set); 0 takes a free one.",
)
@click.option(
    "--respawn", is_flag=True, help="Start another worker at once where this one dies; SIGTERM still ends it."
)
@click.pass_obj
def command(settings: Settings, model: Path | None, device: str | None, port: int | None, respawn: bool) -> None:
    """Run one stream worker. Start as many as the lanes have partitions; SIGTERM drains and exits 0."""
    from functools import partial

    from infra import logs
    from infra.connections import check_connection
    from infra.runtime import run_process
    from infra.services import run_worker
    from infra.wiring import open_publisher, own_detector

    wanted = {"model.path": model, "model.device": device, "http.port": port}
    settings = settings.defaulting({"http.port": PORT}).overriding(wanted).checked_fully()
    logs.set_up(settings.log)
    if respawn:
        from infra.supervisor import Supervisor

        Supervisor().run()
    with own_detector(settings) as detector:
        check_connection(settings.connection)
        with open_publisher(settings) as publisher:
            run_process(partial(run_worker, settings, publisher, detector), settings.general.grace_s)
