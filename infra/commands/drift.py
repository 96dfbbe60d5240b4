"""`sightstream drift`: baselines of results, and where results differ from them."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.command_values import MOMENT
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.drift import Made
    from schemas.drift import DriftAlert, DriftBaseline
    from sinks.drift_profile import Profile, Slice

_DIFFERS = 1
_SHOWN = 30
_BASELINE = click.argument("baseline_id", metavar="[ID]", required=False)


@click.group("drift")
def command() -> None:
    """Compare windows of results with a baseline, slice by slice; say where they differ."""


@command.command("baseline")
@_BASELINE
@click.option(
    "--from", "start", type=MOMENT, required=True, help="Results from then on: 2026-01-31T12:00 (UTC), or 7d."
)
@click.option("--to", "end", type=MOMENT, help="And before then. Default: now.")
@click.option("--model", default="", metavar="NAME@VERSION", help="Only results of this version. Default: of all.")
@click.option(
    "--slice", "slices", multiple=True, metavar="tenant|key|attributes.NAME", help="Repeatable. Default: drift.slices."
)
@click.option("--lake", type=click.Path(path_type=Path, exists=True), help="Read Parquet files there, not the topic.")
@click.option("--dry-run", is_flag=True, help="Show it, and write nothing.")
@click.pass_obj
def baseline(settings: Settings, /, baseline_id: str | None, dry_run: bool, **given: Any) -> None:
    """Make results of a time when all was well the reference of later ones, under ID (default: drift.baseline).

    The same ID again replaces it. Results of replays do not count.
    """
    from tqdm import tqdm

    from infra.connections import check_connection
    from infra.drift import make_baseline
    from infra.wiring import open_publisher
    from sinks.drift_baseline import Reference
    from streams.drift_reference import publish_baseline

    try:
        reference = Reference(
            id=baseline_id or settings.drift.baseline,
            start=given["start"],
            end=given["end"] or datetime.now(UTC),
            model=given["model"],
            slices=given["slices"] or settings.drift.slices,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if given["lake"] is None or not dry_run:
        check_connection(settings.connection)
    with tqdm(desc="images", unit="img", file=sys.stderr, disable=None, dynamic_ncols=True) as bar:
        made = make_baseline(settings, reference, given["lake"], _say_unread, lambda done: bar.update(done - bar.n))
    _tell_made(made)
    if dry_run:
        return
    with open_publisher(settings) as publisher:
        publish_baseline(publisher, made.baseline)
    click.echo(f"{made.baseline.id} is the baseline of what is watched from now on", err=True)


@command.command("watch")
@_BASELINE
@click.option(
    "--from", "since", type=MOMENT, help="Where nothing is noted in state_dir: begin there. Default: at the end."
)
@click.option("--once", is_flag=True, help="Read what there is, and end. Exit code 1: something differs.")
@click.option("--http/--no-http", default=False, help="Serve /healthz, /readyz and /metrics at http.host:http.port.")
@click.pass_context
def watch(context: click.Context, /, baseline_id: str | None, since: datetime | None, once: bool, http: bool) -> None:
    """Compare results with the baseline ID (default: drift.baseline) as they come; write alerts to the topic `drift`.

    One is enough. It goes on where it was; a second one says nothing twice.
    """
    from functools import partial

    from infra import logs
    from infra.connections import check_connection
    from infra.drift import run_drift, watch_once
    from infra.runtime import run_process

    settings = context.ensure_object(Settings).overriding({"drift.baseline": baseline_id}).checked_fully()
    logs.set_up(settings.log)
    check_connection(settings.connection)
    if not once:
        run_process(partial(run_drift, settings, since, http), settings.general.grace_s)
        return
    differing = watch_once(settings, since)
    for aspect, value in sorted(differing.items()):
        click.echo(f"{aspect.slice}: {aspect.statistic} by {aspect.detector} {value:.3f}")
    if differing:
        context.exit(_DIFFERS)


@command.command("show")
@_BASELINE
@click.option("--tenant", help="Only of this tenant.")
@click.option(
    "--since", type=MOMENT, help="Every alert about windows that end then or later, not only what differs now."
)
@click.option("--json", "as_json", is_flag=True, help="Alerts alone, one JSON object a line.")
@click.pass_obj
def show(
    settings: Settings, baseline_id: str | None, tenant: str | None, since: datetime | None, as_json: bool
) -> None:
    """Show the baselines and what differs from them; with ID that baseline, slice by slice."""
    from infra.drift import find_baseline, read_alerts, read_baselines
    from sinks.drift_baseline import read_profiles
    from streams.drift_watch import describe

    baselines = read_baselines(settings)
    if baseline_id is not None:
        baselines = {baseline_id: find_baseline(baselines, baseline_id)}
    wanted = [
        alert
        for alert in read_alerts(settings)
        if alert.baseline_id in baselines
        and tenant in (None, alert.tenant)
        and (since is None or alert.window_end >= since)
    ]
    alerts = wanted if since is not None else list(_lasting(wanted, baselines))
    if as_json:
        for alert in alerts:
            click.echo(json.dumps(asdict(alert), default=str))
        return
    for one in baselines.values():
        click.echo(_line(one))
        if baseline_id is not None:
            click.echo(
                _table(
                    {of: profile for of, profile in read_profiles(one.profiles).items() if tenant in (None, of.tenant)}
                )
            )
    for alert in alerts:
        click.echo(describe(alert))
    if not alerts:
        click.echo("nothing differs" if since is None else "no alerts")


def _lasting(alerts: "Iterable[DriftAlert]", baselines: "dict[str, DriftBaseline]") -> "Iterable[DriftAlert]":
    """What was said last of everything that has not ended, and not of a baseline that was replaced since."""
    from schemas.drift import DriftState

    last = {(one.baseline_id, one.tenant, one.slice, one.statistic, one.detector): one for one in alerts}
    return (
        alert
        for alert in last.values()
        if alert.state != DriftState.ENDS and alert.at >= baselines[alert.baseline_id].created_at
    )


def _line(one: "DriftBaseline") -> str:
    span = f"{one.window_start:%Y-%m-%dT%H:%M} - {one.window_end:%Y-%m-%dT%H:%MZ}"
    return f"{one.id}: {one.model or 'all models'}, {one.images} images, {span}, by {', '.join(one.slices)}"


def _tell_made(made: "Made") -> None:
    from sinks.drift_baseline import read_profiles

    click.echo(_line(made.baseline))
    click.echo(_table(read_profiles(made.baseline.profiles)))
    if made.too_few:
        names = ", ".join(f"{of} ({profile.images})" for of, profile in list(made.too_few.items())[:_SHOWN])
        click.echo(f"left out, with fewer images than drift.min_images: {names}", err=True)
    if made.no_room:
        click.echo(f"left out for want of room (drift.max_slices): {made.no_room} images of further slices", err=True)


def _table(profiles: "dict[Slice, Profile]") -> str:
    from infra.text_table import table
    from sinks.drift_adwin import mean

    rows = [
        (
            str(of),
            str(profile.images),
            f"{100 * profile.empty / profile.images:.1f} %",
            f"{mean(profile.boxes['score']):.2f}",
            ", ".join(
                label or "other" for label in sorted(profile.classes, key=profile.classes.__getitem__, reverse=True)[:3]
            ),
        )
        for of, profile in list(profiles.items())[:_SHOWN]
    ]
    text = table(("slice", "images", "empty", "mean score", "classes"), rows)
    return text if len(profiles) <= _SHOWN else f"{text}\n{len(profiles) - _SHOWN} more slices"


def _say_unread(record: Any) -> None:
    click.echo(f"passed over: {record.topic} {record.partition}:{record.offset}: {record.error}", err=True)
