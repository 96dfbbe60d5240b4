"""`sightstream data augment`: changed copies of every picture of a data set."""

from pathlib import Path
from typing import Any

import click

from infra.commands.data_options import PLACE
from infra.commands.data_tables import table_of_splits
from infra.progress import progress
from infra.settings import Settings

_SHARE = click.FloatRange(0, 1)


@click.command("augment")
@click.argument("source", metavar="DATASET", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--copies", type=click.IntRange(1), default=1, show_default=True, help="Of each picture.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The same set gives the same copies by the same seed.",
)
@click.option(
    "--degrees", type=click.FloatRange(0, 180), default=10.0, show_default=True, help="Turned by at most so many."
)
@click.option(
    "--scale", nargs=2, type=click.FloatRange(0.1, 10), default=(0.8, 1.25), show_default=True, metavar="LOW HIGH"
)
@click.option("--shift", type=_SHARE, default=0.1, show_default=True, help="At most so much of a side.")
@click.option(
    "--perspective",
    type=click.FloatRange(0, 0.2),
    default=0.04,
    show_default=True,
    help="Corners move by at most so much of a side.",
)
@click.option("--flip", type=click.Choice(["none", "horizontal", "both"]), default="horizontal", show_default=True)
@click.option(
    "--light", type=_SHARE, default=0.8, show_default=True, help="Share of copies in another light and colour."
)
@click.option("--grey", type=_SHARE, default=0.1, show_default=True, help="Share of copies without colour.")
@click.option("--blur", type=_SHARE, default=0.1, show_default=True, help="Share of copies out of focus.")
@click.option("--noise", type=_SHARE, default=0.15, show_default=True, help="Share of copies with noise.")
@click.option("--jpeg", type=_SHARE, default=0.1, show_default=True, help="Share of copies that are compressed hard.")
@PLACE
@click.pass_context
def command(context: click.Context, /, source: Path, out: Path, place: Any, **given: Any) -> None:
    """Write OUT, a new folder: DATASET and changed copies of its pictures, of those in train/ alone where it has splits.

    Boxes follow, tight where objects have outlines. What too little is left of in the frame is painted over. Divide a data set before
    you augment it: copies of one picture must not be in two splits.
    """
    from dataclasses import replace

    from detectors.training.augmenting import AUGMENTED, AugmentPolicy, augment_dataset
    from detectors.training.folders import read_splits
    from schemas.errors import ConfigurationError

    look = {name: given.pop(name) for name in ("light", "grey", "blur", "noise", "jpeg")}
    policy = AugmentPolicy(**given, max_pixels=context.ensure_object(Settings).images.max_pixels)
    policy = replace(policy, look=replace(policy.look, **look))
    splits = read_splits(source)
    if not any(splits[split].pictures for split in splits if split in AUGMENTED):
        raise ConfigurationError(f"{source} has splits, but no picture in train, which is the one that is augmented")
    total = sum(len(data.pictures) * (1 + policy.copies * (split in AUGMENTED)) for split, data in splits.items())
    with progress("writing", total) as watch:
        click.echo(table_of_splits(augment_dataset(source, splits, out, policy, place, watch)))
