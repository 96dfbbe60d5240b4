"""`sightstream settings`: what every setting is now, secrets left out."""

from dataclasses import fields, is_dataclass
from typing import Any

import click

from infra.settings import SECTIONS, Settings, is_secret


@click.command("settings")
@click.pass_obj
def command(settings: Settings) -> None:
    """Print every setting with its value; secrets are not shown."""
    for section in ("general", *SECTIONS):
        prefix = "" if section == "general" else f"{section}."
        _print(prefix, settings.general if section == "general" else getattr(settings, section))


def _print(prefix: str, value: Any) -> None:
    for item in fields(value):
        name, inner = f"{prefix}{item.name}", getattr(value, item.name)
        if is_dataclass(inner):
            _print(f"{name}.", inner)
        elif item.metadata.get("keys"):
            for key, text in inner.items():
                click.echo(f"{name}.{key} = {'(not shown)' if is_secret(key) else text}")
        else:
            click.echo(f"{name} = {'(not shown)' if is_secret(name) and inner else inner}")
