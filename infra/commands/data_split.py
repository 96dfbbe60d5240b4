"""`sightstream data split`: a data set into train, val and test."""

from pathlib import Path
from typing import Any

import click

from infra.commands.data_options import NEAR, PLACE
from infra.commands.data_tables import table_of_splits
from infra.progress import progress
from infra.settings import Settings


@click.command("split")
@click.argument("source", metavar="DATASET", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--shares",
    nargs=3,
    type=click.FloatRange(0, 1),
    default=(0.8, 0.1, 0.1),
    show_default=True,
    metavar="TRAIN VAL TEST",
    help="They add up to 1; 0 leaves a split out.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The same pictures are divided alike by the same seed."
)
@NEAR
@PLACE
@click.pass_context
def command(context: click.Context, /, source: Path, out: Path, place: Any, **given: Any) -> None:
    """Divide DATASET into OUT/train, OUT/val and OUT/test, each class by the same shares, the rarest first.

    Pictures that are the same, or nearly, are never divided. Splits that DATASET has already are joined and divided anew. OUT is a new
    folder, which appears whole or not at all.
    """
    from detectors.training.folders import name_pictures, read_splits
    from detectors.training.splitting import SplitPolicy, split_dataset, write_split

    found = read_splits(source)
    policy = SplitPolicy(**given)
    pictures = [named for part in name_pictures(source, found).values() for named in part]
    with progress("comparing", len(pictures)) as watch:
        parts = split_dataset(pictures, policy, context.ensure_object(Settings).images, watch)
    with progress("writing", len(pictures)) as watch:
        splits = write_split(parts, next(iter(found.values())).names, out, place, watch)
    click.echo(table_of_splits(splits))
