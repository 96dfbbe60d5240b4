"""The command `sightstream`: a group that imports a command's module when that command runs, so that `--help` is instant."""

from pathlib import Path
from typing import IO, Any

import click

from infra.lazy_group import LazyGroup
from schemas.errors import BusyError, DeliveryError, FatalError, SightstreamError

# name -> (module under infra.commands, one line for --help)
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "Run everything in one process: broker, worker, sinks, gateway."),
    "demo": ("demo", "Detect objects in photographs, end to end, on an embedded broker."),
    "publish": ("publish", "Publish references to images."),
    "detect": ("detect", "Detect objects in pictures through a gateway; save them with their boxes."),
    "worker": ("worker", "Run one stream worker: references in, detections out."),
    "sink": ("sink", "Carry results to files, or into the result store."),
    "gateway": ("gateway", "Take images over HTTP, give results: upload, poll, push, a page."),
    "notifier": ("notifier", "Serve results to websocket and SSE subscribers."),
    "store": ("store", "Migrate, look at or rebuild the result store."),
    "broker": ("broker", "Start, stop or look at a local Apache Kafka."),
    "topics": ("topics", "Create or check the topics; show consumer lag."),
    "schemas": ("schemas", "Register the Avro schemas, or check them against a registry."),
    "dead-letters": ("dead_letters", "List, show or redrive records that failed."),
    "data": ("data", "Make, import, check, split or augment pictures to train on."),
    "models": ("models", "Keep versions of models for workers; export; check that every backend finds the same."),
    "rollout": ("rollout", "Share a model's images between two versions; let a judge decide."),
    "train": ("train", "Train a detector by a recipe; go on with a run."),
    "evaluate": ("evaluate", "Measure a model on images with ground truth."),
    "package": ("package", "Make a trained network a model to serve: ONNX, card, manifest."),
    "diff": ("diff", "Compare what two versions, replays or arms found in the same images."),
    "drift": ("drift", "Say where results drift: class mix, scores, boxes, by tenant, camera, attribute."),
    "replay": ("replay", "Send a stretch of history through a model again; list, resume or stop such replays."),
    "keys": ("keys", "Hand out, list, rotate or revoke API keys of the gateway."),
    "webhooks": ("webhooks", "Print the secret that webhooks of a tenant are signed with."),
    "parquet": ("parquet", "Verify the Parquet files of a sink."),
    "settings": ("settings", "Print every setting with its value."),
}


class _Failure(click.ClickException):
    """What was raised on purpose, as one line on stderr. Exit code 2: the user can mend it; 1: start again."""

    def __init__(self, error: SightstreamError) -> None:
        super().__init__(str(error))
        self.exit_code = 1 if isinstance(error, FatalError | DeliveryError | BusyError) else 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"sightstream: {self.format_message()}", err=file is None, file=file)


class _Sightstream(LazyGroup):
    """The root, where errors made for the user become one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors made for the user end the process with one line."""
        try:
            return super().invoke(ctx)
        except SightstreamError as error:
            raise _Failure(error) from error


@click.group(cls=_Sightstream, parts=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sightstream", prog_name="sightstream")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file (TOML). Default: ./sightstream.toml",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.NAME=VALUE",
    help="One setting, over file and environment. Repeatable.",
)
@click.pass_context
def group(context: click.Context, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Streaming object detection on a Kafka log.

    Settings: command line, over environment (SIGHTSTREAM_KAFKA_BOOTSTRAP ...), over the settings file, over defaults.
    """
    from infra import settings

    pairs = [pair.partition("=") for pair in overrides]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise click.BadParameter(f"{wrong[0]!r} is not SECTION.NAME=VALUE", param_hint="--set")
    context.obj = settings.load(config, {name: value for name, _, value in pairs})
    settings.arm_failpoint(context.obj)


def main() -> None:
    """The console script."""
    group(prog_name="sightstream")


if __name__ == "__main__":
    main()
