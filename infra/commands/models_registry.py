"""`sightstream models add|list|show|promote|retire|verify`: the versions of models that workers run."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.command_values import PAIR
from infra.settings import Settings

if TYPE_CHECKING:
    from schemas.models import ModelStatus, ModelVersion
    from streams.rollout_ledger import RolloutLedger

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.argument("model")
@click.option("--name", help="Default: the file's stem.")
@click.option("--version", help="Default: one more than the highest number there is.")
@click.option(
    "--beside", type=_FILE, multiple=True, help="A file that belongs to it, such as NAME.int8.xml. Repeatable."
)
@click.option(
    "--at", default="", help="URI of the folder where workers find the files. Default: where they are, by path."
)
@click.option("--backend", default="", help="Default: the worker's choice.")
@click.option("--precision", default="", help="Default: the worker's choice.")
@click.option("--confidence", type=click.FloatRange(0, 1), help="Least score of a detection. Default: the model's own.")
@click.option(
    "--iou", type=click.FloatRange(0, 1), help="Of two boxes that overlap more one is kept. Default: the model's own."
)
@click.option("--metric", "metrics", type=PAIR, multiple=True, help="NAME=NUMBER, such as map=0.37. Repeatable.")
@click.option("--lineage", type=PAIR, multiple=True, help="NAME=TEXT: what it was made of. Repeatable.")
@click.option("--licence", default="")
@click.option("--stable", is_flag=True, help="Make it the stable version at once. Default: a candidate.")
@click.pass_obj
def add(settings: Settings, /, model: str, name: str | None, version: str | None, stable: bool, **given: Any) -> None:
    """Add MODEL (a file; or fake, noop) as a version. It is opened once to see that it runs; the digests of its files are noted.

    A version never changes: other files are another version.
    """
    from infra.model_records import NewVersion, describe
    from schemas.models import Stage
    from streams.rollout_ledger import Change
    from streams.versions import added, next_version

    called, ledger, now = name or Path(model).stem, _ledger(settings), datetime.now(UTC)
    given["metrics"] = {key: _number(text) for key, text in given["metrics"]}
    given["lineage"] = dict(given["lineage"])
    wanted = NewVersion(
        model=model,
        name=called,
        version=version or next_version(called, ledger.read().versions),
        stage=Stage.STABLE if stable else Stage.CANDIDATE,
        **given,
    )
    record = describe(wanted, now)
    ledger.change(lambda known: Change(versions=added(record, known.versions)))
    click.echo(f"{record.reference}  {record.digest or '-'}  {record.stage}")


@click.command("list")
@click.option("--name", help="Only of this model.")
@click.option("--all", "everything", is_flag=True, help="Also retired ones.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_(settings: Settings, name: str | None, everything: bool, as_json: bool) -> None:
    """List versions: stage, digest, age, and on how many workers each is loaded or refused."""
    from schemas.models import Stage

    versions, statuses = _read(settings)
    for version in versions.values():
        if (name is None or version.name == name) and (everything or version.stage is not Stage.RETIRED):
            of_it = [one for one in statuses if (one.name, one.version) == (version.name, version.version)]
            click.echo(json.dumps(_fields(version, of_it)) if as_json else _line(version, of_it))


@click.command()
@click.argument("reference", metavar="NAME@VERSION")
@click.pass_obj
def show(settings: Settings, reference: str) -> None:
    """All that is known of a version, and what each worker made of it, as JSON."""
    versions, statuses = _read(settings)
    version = _one(reference, versions)
    of_it = [one for one in statuses if (one.name, one.version) == (version.name, version.version)]
    click.echo(json.dumps(_fields(version, of_it), indent=2))


@click.command()
@click.argument("reference", metavar="NAME@VERSION")
@click.pass_obj
def promote(settings: Settings, reference: str) -> None:
    """Make a version the stable one. Workers load it beside the one that runs, and then switch."""
    from streams.rollout_ledger import Change
    from streams.versions import promoted

    now = datetime.now(UTC)
    _ledger(settings).change(lambda known: Change(versions=promoted(reference, known, now)))
    click.echo(f"{reference} is stable", err=True)


@click.command()
@click.argument("reference", metavar="NAME@VERSION")
@click.pass_obj
def retire(settings: Settings, reference: str) -> None:
    """Take a version out of use: only who asks for that very one gets it still."""
    from streams.rollout_ledger import Change
    from streams.versions import retired

    now = datetime.now(UTC)
    _ledger(settings).change(lambda known: Change(versions=retired(reference, known, now)))
    click.echo(f"{reference} is retired", err=True)


@click.command()
@click.argument("references", nargs=-1, metavar="[NAME@VERSION]...")
@click.pass_context
def verify(context: click.Context, references: tuple[str, ...]) -> None:
    """Fetch the files of versions, by default of all that are not retired, into the cache of this machine, and check every digest.

    Exit code 1: some version's files are missing, or not what was added; which ones is said.
    """
    from infra.wiring import open_model_cache
    from schemas.errors import BusyError, RejectedError
    from schemas.models import Stage

    settings = context.ensure_object(Settings)
    versions, _ = _read(settings)
    cache, failed = open_model_cache(settings), False
    chosen = [_one(one, versions) for one in references] or [
        version for version in versions.values() if version.stage is not Stage.RETIRED and version.files
    ]
    for version in chosen:
        try:
            path = cache.fetch(version)
        except (RejectedError, BusyError) as error:
            failed = True
            click.echo(f"{version.reference}  NOT RIGHT  {error}")
        else:
            click.echo(f"{version.reference}  right  {path}")
    if failed:
        context.exit(1)


def _ledger(settings: Settings) -> "RolloutLedger":
    from infra.connections import check_connection
    from infra.wiring import open_codec
    from streams.rollout_ledger import RolloutLedger

    check_connection(settings.connection)
    return RolloutLedger(settings.connection, open_codec(settings), settings.topics, f"{settings.kafka.group}.rollouts")


def _read(settings: Settings) -> "tuple[dict[str, ModelVersion], list[ModelStatus]]":
    from infra.connections import check_connection
    from infra.wiring import open_codec
    from schemas.models import ModelStatus, ModelVersion
    from streams.fold import Fold, Follower, Latest, read_to_end

    check_connection(settings.connection)
    versions, statuses = Latest(ModelVersion), Latest(ModelStatus)
    folds: dict[str, Fold[Any]] = {settings.topics.models: versions, settings.topics.model_status: statuses}
    read_to_end(Follower(settings.connection, open_codec(settings), folds, f"{settings.kafka.group}.models"))
    return versions.all(), list(statuses.all().values())


def _one(reference: str, versions: "dict[str, ModelVersion]") -> "ModelVersion":
    from schemas.errors import ConfigurationError

    if reference not in versions:
        raise ConfigurationError(
            f"the registry has no {reference!r}: `sightstream models list --all` shows what it has"
        )
    return versions[reference]


def _fields(version: "ModelVersion", statuses: "list[ModelStatus]") -> dict[str, object]:
    from dataclasses import asdict

    told = [
        {"worker": one.worker, "state": one.state, "reason": one.reason, "at": one.at.isoformat()} for one in statuses
    ]
    moments = {"added_at": version.added_at.isoformat(), "changed_at": version.changed_at.isoformat()}
    return {**asdict(version), **moments, "workers": told}


def _line(version: "ModelVersion", statuses: "list[ModelStatus]") -> str:
    from collections import Counter

    states = Counter(one.state.value for one in statuses)
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no worker"
    added = version.added_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return "  ".join((version.reference, version.stage, version.digest[:19] or "-", added, told))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number", param_hint="--metric") from None
