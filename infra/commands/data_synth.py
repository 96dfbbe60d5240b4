"""`sightstream data synth`: scenes of machine-readable codes, with their truth."""

from pathlib import Path
from typing import Any

import click

from infra.commands.data_tables import table_of_splits
from infra.progress import progress

_FOLDER = click.Path(path_type=Path, file_okay=False)


class _Split(click.ParamType):
    name = "name=pictures"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        name, _, count = value.partition("=")
        if not name.isidentifier() or not count.isdecimal() or int(count) == 0:
            self.fail(f"{value!r} should be like train=30000", param, ctx)
        return name, int(count)


@click.command("synth")
@click.argument("out", type=_FOLDER)
@click.option(
    "--split",
    "splits",
    type=_Split(),
    multiple=True,
    default=["train=24000", "val=1000", "test=1000"],
    show_default=True,
    help="A part of the data set and its number of pictures; may be repeated.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option(
    "--size", type=click.IntRange(96, 1280), default=512, show_default=True, help="Pixels of the longest side."
)
@click.option("--jobs", type=click.IntRange(1), help="Processes. Default: one a core.")
@click.option(
    "--backgrounds",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Photographs to show parts of, besides the backgrounds that are drawn. There must be no codes in them.",
)
@click.option("--hard", is_flag=True, help="All splits as hard as `test` is: more bends, glare, cuts and look-alikes.")
def command(out: Path, splits: tuple[tuple[str, int], ...], jobs: int | None, **given: Any) -> None:
    """Draw scenes of machine-readable codes into OUT, a data set in COCO's format for each split.

    A picture depends on the seed, its split and its number alone: it is the same for any number of processes. Run again, the command
    goes on where it was stopped.
    """
    from detectors.cores import usable_cores
    from detectors.training.synth import SynthPlan, synthesise

    counts = dict(splits)
    if len(counts) < len(splits):
        raise click.UsageError("a split is named twice")
    with progress("drawing", sum(counts.values())) as watch:
        drawn = synthesise(out, SynthPlan(counts, **given), jobs or usable_cores(), watch)
    click.echo(table_of_splits(drawn))
