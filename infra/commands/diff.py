"""`sightstream diff`: what two versions, replays or arms of a rollout found in the same images."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.command_values import MOMENT
from infra.settings import Settings
from schemas.errors import ConfigurationError
from sinks.diff_policy import DiffPolicy

if TYPE_CHECKING:
    from infra.diff import Places
    from sinks.diff_gate import DiffGate
    from sinks.diff_report import DiffReport, Scorer

_GATE_FAILED = 1
_DEFAULTS = DiffPolicy()

_FILE = click.Path(path_type=Path, dir_okay=False)
_SHARE = click.FloatRange(0, 1)
_OPTIONS = [
    click.argument("first", metavar="A"),
    click.argument("second", metavar="B"),
    click.option("--lake", type=click.Path(path_type=Path), help="Read Parquet files there, not the topics."),
    click.option("--topic", "topics", multiple=True, help="Read this topic instead of the usual ones. Repeatable."),
    click.option("--tenant", help="Images of this tenant only."),
    click.option("--since", type=MOMENT, help="Results made then or later: 2026-01-31T12:00 (UTC), or 2h."),
    click.option("--until", type=MOMENT, help="Results made before then."),
    click.option(
        "--match-iou", type=_SHARE, default=_DEFAULTS.match_iou, show_default=True, help="One object from here."
    ),
    click.option("--same-iou", type=_SHARE, default=_DEFAULTS.same_iou, show_default=True, help="Moved below it."),
    click.option(
        "--same-score", type=_SHARE, default=_DEFAULTS.same_score, show_default=True, help="Rescored above it."
    ),
    click.option(
        "--min-score", type=_SHARE, default=_DEFAULTS.min_score, show_default=True, help="Objects below do not count."
    ),
    click.option(
        "--truth",
        type=click.Path(path_type=Path),
        metavar="FOLDER|COCO.json",
        help="Also score both by it.",
    ),
    click.option("--worst", type=click.IntRange(0, 1000), default=20, show_default=True, help="Images to show."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the intervals."),
    click.option("--html", type=_FILE, help="Also write a page with the worst images there."),
    click.option("--objects", type=_FILE, help="Also write every object there, as Parquet."),
    click.option("--json", "json_path", type=_FILE, help="Also write all figures there."),
    click.option(
        "--fail-on",
        "gates",
        multiple=True,
        metavar="NAME[.CLASS]>SHARE",
        help="Exit code 1 then: lost>1%, disagreement>0.05. Repeatable.",
    ),
]


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command("diff")
@_options
@click.pass_context
def command(context: click.Context, /, first: str, second: str, worst: int, seed: int, **given: Any) -> None:
    """Say what changed between two sets of results of the same images: same, moved, rescored, reclassified, added, lost.

    A and B are each a version (yolov8n@3), a replay's id, or rollout:ID:stable, rollout:ID:candidate. The newest result of an image counts.
    The same results always give the same figures. Exit code 1: what --fail-on names is so; 2: there is nothing to compare.
    """
    settings = context.ensure_object(Settings)
    _check_places(given)
    from infra.diff import compare_sides, read_sides
    from infra.diff_text import tell_diff
    from sinks.diff_gate import DiffGate, broken
    from sinks.diff_report import DiffJob
    from sinks.diff_select import Selector

    gates = [DiffGate.parse(text) for text in given["gates"]]
    score = _scorer(given["truth"], gates)
    selectors = Selector.parse(first), Selector.parse(second)
    one, two = read_sides(settings, selectors, _places(given), _say_unread)
    policy = DiffPolicy(**{name: given[name] for name in ("match_iou", "same_iou", "same_score", "min_score")})
    report = compare_sides(one, two, DiffJob(policy=policy, worst=worst, seed=seed, score=score), given["objects"])
    click.echo(tell_diff(report))
    _write(settings, report, given["html"], given["json_path"])
    failures = broken(gates, report)
    for failure in failures:
        click.echo(f"failed: {failure}", err=True)
    if failures:
        context.exit(_GATE_FAILED)


def _check_places(given: dict[str, Any]) -> None:
    """What would fail after minutes of work fails now."""
    for path in filter(None, (given["html"], given["json_path"], given["objects"])):
        if not path.absolute().parent.is_dir():
            raise click.UsageError(f"there is no directory {path.absolute().parent}")
    if given["lake"] is not None and given["topics"]:
        raise click.UsageError("--lake and --topic exclude each other")


def _scorer(truth: Path | None, gates: "list[DiffGate]") -> "Scorer | None":
    if truth is None:
        if needing := [gate.text for gate in gates if gate.needs_truth]:
            raise ConfigurationError(f"{needing[0]!r} needs --truth")
        return None
    from infra.diff_truth import scorer
    from infra.evaluation import find_data

    return scorer(find_data(truth, None).truth)


def _places(given: dict[str, Any]) -> "Places":
    from infra.diff import Places
    from sinks.diff_select import Scope

    since: datetime | None = given["since"]
    scope = Scope(tenant=given["tenant"], since=since, until=given["until"])
    return Places(lake=given["lake"], topics=given["topics"], scope=scope)


def _write(settings: Settings, report: "DiffReport", html: Path | None, json_path: Path | None) -> None:
    if html is not None:
        from infra.diff import load_pictures
        from sinks.diff_html import page

        html.write_text(page(report, load_pictures(settings, report.worst)), "utf-8")
    if json_path is not None:
        json_path.write_text(json.dumps(report.figures(), indent=1) + "\n", "utf-8")


def _say_unread(record: Any) -> None:
    click.echo(f"{record.topic} {record.partition}:{record.offset} is no result: {record.error}", err=True)
