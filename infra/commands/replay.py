"""`sightstream replay`: a stretch of history through another model."""

import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from infra.command_values import MOMENT, PAIR, SPAN
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.replaying import Course, Report
    from schemas.replays import ReplayManifest
    from streams.replay_book import Entry

_SHOWN = 20
_OFFSETS = re.compile(r"\d+:\d+(,\d+:\d+)*")
_BACKGROUND = 10  # niceness
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class _Bound(click.ParamType):
    """A moment, or offsets of partitions: `0:1200,1:1180`."""

    name = "bound"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it; a usage error if it is neither."""
        if not isinstance(value, str) or not _OFFSETS.fullmatch(value):
            return MOMENT.convert(value, param, ctx)
        pairs = [pair.split(":") for pair in value.split(",")]
        offsets = {int(partition): int(offset) for partition, offset in pairs}
        if len(offsets) < len(pairs):
            self.fail(f"{value!r} names a partition twice", param, ctx)
        return offsets


_BOUND = _Bound()
_COURSE = [
    click.option("--rate", type=click.FloatRange(0, min_open=True), help="At most so many references a second."),
    click.option("--yield-to-online", is_flag=True, help="Only as fast as leaves the online lane's p95 what it is."),
    click.option("--wait", is_flag=True, help="Until every image has a result or a dead letter."),
    click.option(
        "--timeout",
        type=SPAN,
        default="15m",
        show_default=True,
        help="With --wait: give up when nothing came for so long (retries alone may take 11m).",
    ),
    click.option("--json", "as_json", is_flag=True, help="The summary as JSON."),
]
_SCOPE = [
    click.option(
        "--topic", default="online", show_default=True, metavar="online|bulk|NAME", help="The topic of references."
    ),
    click.option(
        "--from",
        "start",
        type=_BOUND,
        metavar="TIME|OFFSETS",
        help="2026-01-31T12:00 (UTC), 2h for two hours ago, or 0:1200,1:1180: of partition 0 from offset 1200, of 1 "
        "from 1180, of the others nothing. Default: all that the topic holds.",
    ),
    click.option("--to", "end", type=_BOUND, metavar="TIME|OFFSETS", help="Before then. Default: now."),
    click.option("--tenant", help="Only of this tenant."),
    click.option("--batch-id", help="Only of this batch."),
    click.option("--filter", "filters", type=PAIR, multiple=True, help="NAME=VALUE: only with it. Repeatable."),
    click.option("--model", metavar="NAME@VERSION", help="What sees the images; NAME@stable is pinned to its version."),
    click.option("--into", metavar="TOPIC", help="Where results go. Default: detections. A new one is made."),
    click.option("--notify", is_flag=True, help="Tell users of the results, as if they were the first."),
    click.option("--id", "replay_id", help="Name of the replay. Default: a new one."),
    click.option("--dry-run", is_flag=True, help="Count, and send nothing."),
]


def _options(options: list[Callable[..., Any]]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


@click.group("replay", invoke_without_command=True)
@_options([*_SCOPE, *_COURSE])
@click.pass_context
def command(context: click.Context, /, **given: Any) -> None:
    """Send references again, through a model of your choice.

    First a manifest is written that says exactly which. Then the references go onto the bulk lane; results carry the replay's
    id and nobody is told of them. Killed or stopped, it goes on by `replay resume`, and each reference is sent exactly once.

    Exit code 1: something was not sent, or with --wait has no result; images that are gone are only listed.
    """
    if context.invoked_subcommand is not None:
        return
    settings = context.ensure_object(Settings)
    if not given["model"]:
        raise click.UsageError("a replay needs a --model NAME@VERSION")
    from infra.connections import check_connection
    from infra.replay_text import plan_text, planned
    from infra.replaying import begin, draw_up

    _make_room(given)
    wanted = _wanted(settings, given)
    check_connection(settings.connection)
    plan = draw_up(settings, wanted, (given["start"], given["end"]), dry_run=given["dry_run"])
    if plan.unreadable:
        click.echo(f"{plan.unreadable} records cannot be read, and are not replayed", err=True)
    if given["dry_run"]:
        click.echo(json.dumps(planned(plan)) if given["as_json"] else plan_text(plan))
        return
    if not given["as_json"]:
        click.echo(plan_text(plan), err=True)
    _finish(context, begin(settings, plan.manifest, _course(given)), as_json=given["as_json"])


@command.command("resume")
@click.argument("replay_id", metavar="ID")
@_options(_COURSE)
@click.pass_context
def resume(context: click.Context, /, replay_id: str, **given: Any) -> None:
    """Go on with a replay that was stopped or killed; of one that is complete, --wait counts the outcomes."""
    settings = context.ensure_object(Settings)
    from infra.connections import check_connection
    from infra.replaying import go_on

    _make_room(given)
    check_connection(settings.connection)
    _finish(context, go_on(settings, replay_id, _course(given)), as_json=given["as_json"])


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_(settings: Settings, *, as_json: bool) -> None:
    """List all replays, the latest last."""
    from infra.replay_text import line, standing

    entries = sorted(_book(settings).values(), key=lambda entry: entry.manifest.created_at)
    for entry in entries:
        click.echo(json.dumps(standing(entry)) if as_json else line(entry))
    if not entries and not as_json:
        click.echo("no replays yet", err=True)


@command.command("status")
@click.argument("replay_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def status(settings: Settings, replay_id: str, *, as_json: bool) -> None:
    """Show what a replay sends, and how far it has come."""
    from infra.connections import check_connection
    from infra.replay_text import line, standing
    from infra.replaying import open_book

    check_connection(settings.connection)
    entry = open_book(settings).get(replay_id)
    if as_json:
        click.echo(json.dumps(standing(entry)))
        return
    click.echo(line(entry))
    for name, value in standing(entry).items():
        click.echo(f"  {name:<12} {json.dumps(value) if isinstance(value, dict | list) else value}")


@command.command("stop")
@click.argument("replay_id", metavar="ID")
@click.pass_obj
def stop(settings: Settings, replay_id: str) -> None:
    """Let a running replay leave off, on whichever machine it runs. What it has sent is still worked on."""
    from infra.connections import check_connection
    from infra.replaying import ask_to_stop

    check_connection(settings.connection)
    ask_to_stop(settings, replay_id)
    click.echo(f"replay {replay_id} is asked to stop; to go on: sightstream replay resume {replay_id}")


def _book(settings: Settings) -> "Mapping[str, Entry]":
    from infra.connections import check_connection
    from infra.replaying import open_book

    check_connection(settings.connection)
    return open_book(settings).read()


def _wanted(settings: Settings, given: Mapping[str, Any]) -> "ReplayManifest":
    """What the command line asks for, as a manifest without its counts."""
    import getpass
    import secrets
    import socket

    from schemas.replays import ReplayManifest

    now = datetime.now(UTC)
    replay_id = given["replay_id"] or f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    if not _ID.fullmatch(replay_id):
        raise click.BadParameter("1 to 64 letters, digits, . _ and -", param_hint="--id")
    lanes = {"online": settings.topics.online, "bulk": settings.topics.bulk}
    return ReplayManifest(
        id=replay_id,
        topic=lanes.get(given["topic"], given["topic"]),
        model=given["model"],
        into=given["into"],
        tenant=given["tenant"],
        batch_id=given["batch_id"],
        filters=dict(given["filters"]),
        notify=given["notify"],
        created_by=f"{getpass.getuser()}@{socket.gethostname()}",
        created_at=now,
    )


def _make_room(given: Mapping[str, Any]) -> None:
    """On the machine of the workers, too: reading a topic to draw up a replay is work that people would wait for."""
    if given["yield_to_online"]:
        os.nice(_BACKGROUND)


def _course(given: Mapping[str, Any]) -> "Course":
    from infra.replaying import Course

    return Course(
        rate=given["rate"],
        yielding=given["yield_to_online"],
        patience=given["timeout"] if given["wait"] else None,
    )


def _finish(context: click.Context, report: "Report", *, as_json: bool) -> None:
    """Say what became of it."""
    from infra.replay_text import summary, text

    for difference in report.outcome.differences:
        click.echo(difference, err=True)
    if report.tally is not None:
        _name("gone", [f"{image_id} {uri}" for image_id, uri in sorted(report.tally.gone.items())])
        _name("failed", [f"{image_id} ({code})" for image_id, code in sorted(report.tally.failures.items())])
        _name("no outcome", report.missing)
    if report.outcome.progress.state != "completed":
        click.echo(f"stopped; to go on: sightstream replay resume {report.manifest.id}", err=True)
    click.echo(json.dumps(summary(report)) if as_json else text(report))
    if not report.ok:
        context.exit(1)


def _name(what: str, images: "list[str] | tuple[str, ...]") -> None:
    for image in images[:_SHOWN]:
        click.echo(f"{what}: {image}", err=True)
    if len(images) > _SHOWN:
        click.echo(f"{what}: {len(images) - _SHOWN} more", err=True)
