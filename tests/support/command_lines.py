"""Command lines of `sightstream`, checked without running them."""

from collections.abc import Sequence

import click

from infra.cli import group


def parse(arguments: Sequence[str]) -> click.Command:
    """The command that a command line means; raises click.UsageError where it would be refused."""
    context = group.make_context("sightstream", list(arguments))
    command: click.Command = group
    while isinstance(command, click.Group):
        words = [*context._protected_args, *context.args]
        if command.invoke_without_command and not words:
            break
        name, found, rest = command.resolve_command(context, words)
        assert found is not None
        command = found
        context = command.make_context(name, rest, parent=context)
    return command
