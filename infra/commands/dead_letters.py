"""`sightstream dead-letters`: look through records that failed, and put them back."""

import base64
import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from infra.command_values import MOMENT
from infra.settings import Settings

if TYPE_CHECKING:
    from streams.dead_letters import DeadLetters, Entry, Filter

_MESSAGE_CHARACTERS = 60


def _filters(function: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option("--code", "codes", multiple=True, help="A stable code, such as image_not_found. Repeatable."),
        click.option(
            "--since", type=MOMENT, help="Failed then or later: 2026-01-31T12:00 (UTC), or 2h for two hours ago."
        ),
        click.option("--until", type=MOMENT, help="Failed before then."),
        click.option("--image-id", "image_ids", multiple=True, help="Of this image. Repeatable."),
        click.option("--batch-id", help="Of this batch."),
        click.option("--limit", type=click.IntRange(1), help="At most so many."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.group("dead-letters")
def command() -> None:
    """List, show or redrive records that failed."""


@command.command("list")
@_filters
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, without the original bytes.")
@click.pass_obj
def list_(settings: Settings, /, as_json: bool, **filters: Any) -> None:
    """List dead letters: where they lie, when and why they failed, and which image it was."""
    count = 0
    for entry in _letters(settings).find(_filter(filters), _say_unreadable):
        count += 1
        click.echo(json.dumps(_summary(entry)) if as_json else _line(entry))
    if not as_json:
        click.echo(f"{count} dead letters", err=True)


@command.command()
@click.argument("place", metavar="[PARTITION:]OFFSET")
@click.pass_obj
def show(settings: Settings, place: str) -> None:
    """Show all of one dead letter, as JSON: its record's bytes (base64), and the reference if they hold one."""
    from streams.dead_letters import Filter, Place

    try:
        wanted = Place.parse(place)
    except ValueError as error:
        raise click.BadParameter(f"{place!r} is not [PARTITION:]OFFSET", param_hint="PLACE") from error
    found = next(_letters(settings).find(Filter(places=frozenset({wanted}))), None)
    if found is None:
        raise click.ClickException(f"there is no dead letter at {wanted}")
    click.echo(json.dumps(_details(settings, found), indent=2))


@command.command()
@_filters
@click.option("--at", "places", multiple=True, metavar="[PARTITION:]OFFSET", help="The letter there. Repeatable.")
@click.option("--all", "everything", is_flag=True, help="Without this, at least one filter is needed.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@click.option("--again", is_flag=True, help="Also what was redriven before.")
@click.pass_context
def redrive(
    context: click.Context, /, places: tuple[str, ...], everything: bool, dry_run: bool, again: bool, **filters: Any
) -> None:
    """Put records back on their lanes: same bytes, key and image id, tries counted anew.

    A letter is redriven once, whoever asks, unless --again. Exit code 1 if some could not be.
    """
    if not (everything or places or any(filters.values())):
        raise click.UsageError("say which: a filter, --at, or --all")
    settings = context.ensure_object(Settings)
    from infra.wiring import open_publisher

    wanted, letters = _filter(filters, places), _letters(settings)
    with open_publisher(settings) as publisher:
        done = letters.redrive(letters.find(wanted, _say_unreadable), publisher, again=again, dry_run=dry_run)
    for place, obstacle in done.impossible.items():
        click.echo(f"{place}: {obstacle}", err=True)
    click.echo(
        f"{'would redrive' if dry_run else 'redriven'}: {len(done.sent)}, "
        f"redriven before: {len(done.before)}, not possible: {len(done.impossible)}"
    )
    if done.impossible:
        context.exit(1)


def _letters(settings: Settings) -> "DeadLetters":
    from infra.connections import check_connection
    from infra.wiring import open_codec
    from streams.dead_letters import DeadLetters

    check_connection(settings.connection)
    return DeadLetters(settings.connection, open_codec(settings), settings.topics)


def _filter(given: dict[str, Any], places: tuple[str, ...] = ()) -> "Filter":
    from streams.dead_letters import Filter, Place

    try:
        chosen = frozenset(map(Place.parse, places))
    except ValueError as error:
        raise click.BadParameter("is not [PARTITION:]OFFSET", param_hint="--at") from error
    return Filter(
        codes=frozenset(given["codes"]),
        since=given["since"],
        until=given["until"],
        image_ids=frozenset(given["image_ids"]),
        batch_id=given["batch_id"],
        limit=given["limit"],
        places=chosen,
    )


def _say_unreadable(place: object, error: Exception) -> None:
    click.echo(f"{place}: not a dead letter: {error}", err=True)


def _line(entry: "Entry") -> str:
    letter = entry.letter
    failed_at = letter.failed_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    marks = " (redriven)" if entry.redriven else ""
    message = " ".join(letter.message.split())[:_MESSAGE_CHARACTERS]
    return f"{entry.place}  {failed_at}  {letter.code}  {letter.image_id or '-'}  {letter.stage}: {message}{marks}"


def _summary(entry: "Entry") -> dict[str, Any]:
    fields = {name: value for name, value in asdict(entry.letter).items() if name not in {"value", "key", "headers"}}
    return {"place": str(entry.place), "redriven": entry.redriven, **_plain(fields)}


def _details(settings: Settings, entry: "Entry") -> dict[str, Any]:
    from infra.wiring import open_codec
    from schemas.errors import SightstreamError
    from schemas.records import ImageRef

    reference = None
    with contextlib.suppress(SightstreamError):
        reference = _plain(asdict(open_codec(settings).decode(entry.letter.value, ImageRef)))
    fields = _plain(asdict(entry.letter))
    return {"place": str(entry.place), "redriven": entry.redriven, **fields, "reference": reference}


def _plain(value: Any) -> Any:
    """The value in types that JSON has: moments in ISO 8601, bytes in base64."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
