"""Options that several of the commands of `sightstream data` share."""

import click

PLACE = click.option(
    "--place",
    type=click.Choice(["copy", "hardlink", "symlink"]),
    default="copy",
    show_default=True,
    help="How the pictures themselves get into OUT.",
)

NEAR = click.option(
    "--near",
    "near_bits",
    type=click.IntRange(0, 16),
    default=6,
    show_default=True,
    metavar="BITS",
    help="Pictures are nearly the same whose perceptual hashes (64 bits) differ in at most so many.",
)
