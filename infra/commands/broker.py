"""`sightstream broker`: a real Apache Kafka on this machine, and a schema registry if wanted."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.settings import Settings

if TYPE_CHECKING:
    from infra.broker.local import LocalKafka
    from infra.broker.registry import LocalRegistry

_DEFAULT_PORT = 9092
_DEFAULT_REGISTRY_PORT = 8081

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    help="Where its data lies. Default: broker/ in the state folder.",
)


@click.group()
def command() -> None:
    """Start, stop and look at a local Apache Kafka: no Docker, no Java to install, loopback only, data kept between runs."""


@command.command()
@_directory
@click.option("--nodes", type=click.IntRange(1, 9), help="Servers of a new cluster. Default: 1; 3 for replication.")
@click.option("--port", type=click.IntRange(1024, 65000), help="First port of a new cluster. Default: 9092.")
@click.option("--registry", is_flag=True, help="A schema registry too, in memory.")
@click.option("--registry-port", type=click.IntRange(1024, 65535), default=_DEFAULT_REGISTRY_PORT, show_default=True)
@click.pass_obj
def start(
    settings: Settings, directory: Path | None, nodes: int | None, port: int | None, registry: bool, registry_port: int
) -> None:
    """Start it, and return when it answers. The first time downloads 44 MB (the registry 159 MB more)."""
    kafka = _kafka(settings, directory, nodes, port)
    kafka.start()
    click.echo(f"Kafka answers at {kafka.bootstrap}; data in {kafka.directory}")
    if registry:
        local = _registry(settings, directory, registry_port)
        local.start()
        click.echo(f"schema registry answers at {local.url}; in memory, empty after a restart")


@command.command()
@_directory
@click.pass_obj
def stop(settings: Settings, directory: Path | None) -> None:
    """End the broker and the registry; the broker's data stays."""
    _registry(settings, directory).stop()
    _kafka(settings, directory).stop()
    click.echo("stopped")


@command.command()
@_directory
@click.pass_context
def status(context: click.Context, directory: Path | None) -> None:
    """Say what runs; exit code 1 if no broker does."""
    settings = context.ensure_object(Settings)
    kafka, registry = _kafka(settings, directory), _registry(settings, directory)
    running = kafka.running()
    for node, pid in running.items():
        click.echo(f"Kafka node {node} runs, pid {pid}")
    if running:
        click.echo(f"bootstrap: {kafka.bootstrap}")
    if registry_pid := registry.running():
        click.echo(f"schema registry runs, pid {registry_pid}: {registry.url}")
    if not running:
        click.echo("no broker runs" + (f"; data in {kafka.directory}" if kafka.exists else ""))
        context.exit(1)


def _kafka(
    settings: Settings, directory: Path | None, nodes: int | None = None, port: int | None = None
) -> "LocalKafka":
    from infra.broker.local import LocalKafka

    place = _place(settings, directory)
    kafka = LocalKafka(place, cache=settings.general.cache_dir)
    if kafka.exists or port:
        return LocalKafka(place, nodes=nodes, port=port, cache=settings.general.cache_dir)
    return LocalKafka(place, nodes=nodes, port=_DEFAULT_PORT, cache=settings.general.cache_dir)


def _registry(settings: Settings, directory: Path | None, port: int | None = None) -> "LocalRegistry":
    from infra.broker.registry import LocalRegistry

    return LocalRegistry(_place(settings, directory), port=port, cache=settings.general.cache_dir)


def _place(settings: Settings, directory: Path | None) -> Path:
    return directory or settings.state_dir / "broker"
