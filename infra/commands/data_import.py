"""`sightstream data import`: labels of COCO, Pascal VOC or YOLO into a data set of ours."""

from pathlib import Path
from typing import Any

import click

from infra.command_values import PAIR
from infra.commands.data_options import PLACE
from infra.commands.data_tables import table_of_splits
from infra.progress import progress


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(["coco", "voc", "yolo"]), help="Default: what SOURCE looks like.")
@click.option(
    "--pictures",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where they are. Default: where SOURCE, or the layout usual for its format, has them.",
)
@PLACE
@click.option(
    "--names",
    metavar="FILE|A,B,...",
    help="All classes in order (YOLO: by number): a file, one a line, or here. Others are unknown.",
)
@click.option(
    "--map", "renames", type=PAIR, multiple=True, metavar="OLD=NEW", help="Rename, or merge, a class. Repeatable."
)
@click.option("--drop", multiple=True, metavar="NAME", help="Leave out this class of the source. Repeatable.")
@click.option("--only", multiple=True, metavar="NAME", help="Leave out all but this class of the source. Repeatable.")
@click.option(
    "--unknown",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="Labels of no known class.",
)
@click.option(
    "--repair", is_flag=True, help="Cut boxes to the frame and leave out what is wrong; still named on stderr."
)
def command(source: Path, out: Path, **given: Any) -> None:
    """Bring labels and pictures into OUT, a new folder: annotations.json and images/, or train/, val/, test/ of these.

    SOURCE: COCO's JSON file, YOLO's data.yaml, or a folder in COCO's, Pascal VOC's or YOLO's layout, plain, with subfolders or with
    splits. Sizes come from the pictures, turned upright. Every defect is named on stderr with file and line or entry; unless --repair
    is given, nothing is written then, and the exit code is 2. OUT appears whole or not at all.
    """
    from detectors.training.importers import guess_format, read_labels
    from detectors.training.importing import ImportPolicy, plan_import, write_import
    from schemas.errors import ConfigurationError

    if both := set(given["drop"]) & set(given["only"]):
        raise click.UsageError(f"--drop and --only both name {', '.join(sorted(both))}")
    names, kind = _names(given["names"]), given["kind"] or guess_format(source)
    policy = ImportPolicy(
        # YOLO's labels are numbers, and the names are of these: classes may still be renamed or left out.
        names=() if kind == "yolo" else names,
        renames=dict(given["renames"]),
        drop=frozenset(given["drop"]),
        only=frozenset(given["only"]),
        drop_unknown=given["unknown"] == "drop",
    )
    found = read_labels(source, kind, names, given["pictures"])
    with progress("reading", len(found.pictures)) as watch:
        plan = plan_import(found, policy, watch)
    for defect in plan.defects:
        click.echo(str(defect), err=True)
    if plan.defects and not given["repair"]:
        raise ConfigurationError(
            f"{len(plan.defects)} defects, and nothing is written; --repair leaves out what is wrong"
        )
    with progress("writing", sum(map(len, plan.splits.values()))) as watch:
        splits = write_import(plan, out, given["place"], watch)
    click.echo(table_of_splits(splits))


def _names(given: str | None) -> tuple[str, ...]:
    """Of a file, one a line, or of the option itself."""
    from schemas.errors import ConfigurationError

    if given is None:
        return ()
    file = Path(given)
    try:
        lines = file.read_text("utf-8").splitlines() if file.is_file() else given.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the names in {file}: {error}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(set(names)) < len(names) or not names:
        raise ConfigurationError(f"--names {given}: it names {'a class twice' if names else 'no class'}")
    return names
