"""`sightstream data synth`: scenes of machine-readable codes, with their truth."""

from pathlib import Path

import click

_FOLDER = click.Path(path_type=Path, file_okay=False)


class _Split(click.ParamType):
    """`NAME=PICTURES`."""

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
@click.option("--split", "splits", type=_Split(), multiple=True, default=("train=30000", "val=1000", "test=1000"), show_default=True, help="A part of the data set and its number of pictures; several times.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--size", type=click.IntRange(96, 1280), default=512, show_default=True, help="Pixels of the longest side.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1), help="Processes. Default: one a core.")
@click.option("--backgrounds", type=_FOLDER, help="Photographs to use parts of, besides drawn backgrounds. They must show no codes.")  # fmt: skip
@click.option("--hard", is_flag=True, help="All splits as hard as `test` is: bends, glare, cuts, look-alikes.")
def command(  # noqa: PLR0913 - click hands each option over by itself
    out: Path,
    splits: tuple[tuple[str, int], ...],
    seed: int,
    size: int,
    jobs: int | None,
    backgrounds: Path | None,
    hard: bool,
) -> None:
    """Draw scenes of machine-readable codes into OUT: a data set in COCO's format for each split.

    A picture depends on the seed, the split and its number alone, so that it is the same for any number of processes. Run again, it goes
    on where it was stopped.
    """
    import sys

    from tqdm import tqdm

    from detectors.cores import usable_cores
    from detectors.training.synth import SynthPlan, synthesise

    counts = dict(splits)
    if len(counts) < len(splits):
        raise click.UsageError("a split is named twice")
    plan = SynthPlan(counts, seed, size, hard, backgrounds)
    with tqdm(
        total=sum(counts.values()), unit="img", desc="drawing", file=sys.stderr, disable=None, leave=False
    ) as bar:
        codes = synthesise(out, plan, jobs or usable_cores(), bar.update)
    for split, count in counts.items():
        click.echo(f"{out / split}: {count} pictures, {codes[split]} codes")
