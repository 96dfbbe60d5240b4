"""`sightstream settings`: what every setting is now, secrets left out."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import click

from infra.settings import SECTIONS, Settings, is_secret


@click.command("settings")
@click.pass_obj
def command(settings: Settings) -> None:
    """Print every setting with its value; secrets are not shown."""
    _print("", settings.section(""))
    for section in SECTIONS:
        _print(section, settings.section(section))


def _print(name: str, value: Any) -> None:
    above = f"{name}." if name else ""
    if is_dataclass(value):
        for item in fields(value):
            _print(f"{above}{item.name}", getattr(value, item.name))
    elif isinstance(value, Mapping) and value:
        for key, inner in value.items():
            _print(f"{above}{key}", inner)
    else:
        click.echo(f"{name} = {'(not shown)' if is_secret(name) and value else value}")
