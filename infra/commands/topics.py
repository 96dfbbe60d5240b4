"""`sightstream topics`: the catalogue on a cluster, and how far consumers are behind."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from infra.settings import Settings

if TYPE_CHECKING:
    from infra.topics import Lag, TopicAdmin


@click.group()
def command() -> None:
    """Create or check the topics of the catalogue; show consumer lag."""


@command.command()
@click.pass_obj
def create(settings: Settings) -> None:
    """Create the topics that are missing. Partitions, replication and prefix are settings (`kafka.partitions` ...)."""
    kafka = settings.kafka
    catalogue = settings.topics.catalogue(kafka.partitions)
    created = _admin(settings).create(catalogue, kafka.replication)
    for topic in catalogue:
        click.echo(f"{topic.name}: {'created' if topic.name in created else 'exists'}")


@command.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Say where topics differ from the catalogue, in partitions, replication or settings; exit code 1 if any does."""
    settings = context.ensure_object(Settings)
    catalogue = settings.topics.catalogue(settings.kafka.partitions)
    differences = _admin(settings).check(catalogue, settings.kafka.replication)
    for difference in differences:
        click.echo(f"{difference.topic}: {difference.what} should be {difference.wanted}, is {difference.found}")
    if differences:
        context.exit(1)
    click.echo(f"{len(catalogue)} topics are as they should be")


@command.command()
@click.option("--group", "groups", multiple=True, help="A consumer group. Default: all that begin with kafka.group.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def lag(settings: Settings, groups: Sequence[str], as_json: bool) -> None:
    """Show how many records each consumer group has still to read, per partition."""
    admin = _admin(settings)
    names = [topic.name for topic in settings.topics.catalogue()]
    lags = admin.lag(groups or admin.groups(settings.kafka.group), names)
    if as_json:
        from dataclasses import asdict

        for entry in lags:
            click.echo(json.dumps(asdict(entry)))
    elif lags:
        _table(("group", "topic", "partition", "committed", "end", "lag"), [_cells(entry) for entry in lags])
        click.echo(f"total lag: {sum(entry.lag for entry in lags)}")
    else:
        click.echo("no group has committed anything on these topics")


def _admin(settings: Settings) -> "TopicAdmin":
    from infra.connections import check_connection
    from infra.topics import TopicAdmin

    check_connection(settings.connection)
    return TopicAdmin(settings.connection)


def _cells(entry: "Lag") -> tuple[str, ...]:
    committed = "-" if entry.committed is None else str(entry.committed)
    return entry.group, entry.topic, str(entry.partition), committed, str(entry.end), str(entry.lag)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
