"""`sightstream schemas`: the packaged schemas and a registry."""

import click

from infra.settings import Settings


@click.group()
def command() -> None:
    """Register the packaged schemas, or check them against what is registered."""


@command.command()
@click.pass_obj
def register(settings: Settings) -> None:
    """Register the packaged schemas for every topic: a step of a deployment. Doing it twice changes nothing."""
    from infra.registry import RegistrySchemas, subject_of

    schemas = RegistrySchemas(settings.registry, settings.topics)
    for topic in settings.topics.catalogue():
        click.echo(f"{subject_of(topic.name)}: {topic.record} has the id {schemas.id_of(topic.record)}")


@command.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Say which packaged schemas a registry would refuse; exit code 1 if any. Changes nothing."""
    from infra.registry import incompatible

    settings = context.ensure_object(Settings)
    refused = incompatible(settings.registry, settings.topics)
    for line in refused:
        click.echo(f"{line} is not compatible with what is registered")
    if refused:
        context.exit(1)
    click.echo("the packaged schemas are compatible with what is registered")
