"""`sightstream rollout`: share the images of a model between two of its versions."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from infra.command_values import SPAN
from infra.settings import Settings
from schemas.rollouts import RolloutKind

if TYPE_CHECKING:
    from schemas.rollouts import ArmFigures, Rollout, Verdict
    from streams.rollout_ledger import RolloutLedger

_SHADOWED = {RolloutKind.CANARY: 0.1, RolloutKind.SHADOW: 1.0}
_NAME = click.argument("name", metavar="NAME")


class _Share(click.ParamType):
    """`5%`, or `0.05`."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it; a usage error if it is none."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{value!r} is not a share such as 5% or 0.05", param, ctx)
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is not between 0% and 100%", param, ctx)
        return share


class _Steps(click.ParamType):
    """`5%,25%,50%`."""

    name = "steps"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Read them; a usage error if they are none."""
        if isinstance(value, tuple):
            return value
        return tuple(_SHARE.convert(part, param, ctx) for part in value.split(","))


_SHARE = _Share()


@click.group("rollout")
def command() -> None:
    """Share the images of a model between two versions: canary, A/B, shadow, blue/green."""


@command.command()
@click.argument("candidate", metavar="NAME@VERSION")
@click.option(
    "--kind",
    type=click.Choice([kind.value.replace("_", "-") for kind in RolloutKind]),
    default="canary",
    show_default=True,
    help="canary: by itself, in steps; weighted: a share; shadow: unseen by users; blue-green, fixed: all or nothing.",
)
@click.option("--stable", default="", metavar="NAME@VERSION", help="Against this version. Default: the stable one.")
@click.option("--steps", type=_Steps(), default="5%,25%,50%", show_default=True, help="What a canary goes through.")
@click.option(
    "--share", type=_SHARE, default="50%", show_default=True, help="Of a weighted one: the candidate's share."
)
@click.option("--shadow-share", type=_SHARE, help="Seen by both versions. Default: canary 10%, shadow 100%, else none.")
@click.option("--window", type=SPAN, default="60s", show_default=True, help="Judged together, by event time.")
@click.option("--min-samples", type=click.IntRange(1), default=100, show_default=True, help="Of each arm, in a window.")
@click.option("--max-errors-added", type=_SHARE, default="1%", show_default=True, help="More failures than stable.")
@click.option(
    "--max-latency-ratio", type=click.FloatRange(0), default=1.5, show_default=True, help="p95 over stable's."
)
@click.option("--max-disagreement", type=_SHARE, default="5%", show_default=True, help="Of the objects both saw.")
@click.pass_obj
def start(settings: Settings, /, **given: Any) -> None:
    """Begin a rollout to a version of the registry.

    Images that ask for the model by its bare name take part; each key (a camera, say) stays with its version.
    """
    import uuid

    from schemas.rollouts import CanaryGuard
    from streams.rollout_ledger import Change
    from streams.rollouts import Plan, started

    kind, shadow_share = RolloutKind(given["kind"].replace("-", "_")), given["shadow_share"]
    plan = Plan(
        candidate=given["candidate"],
        kind=kind,
        stable=given["stable"],
        steps=given["steps"] if kind is RolloutKind.CANARY else (),
        share=given["share"],
        shadow_share=_SHADOWED.get(kind, 0.0) if shadow_share is None else shadow_share,
        guard=CanaryGuard(
            window_s=given["window"].total_seconds(),
            min_samples=given["min_samples"],
            max_errors_added=given["max_errors_added"],
            max_latency_ratio=given["max_latency_ratio"],
            max_disagreement=given["max_disagreement"],
        ),
    )
    name, rollout_id, now = plan.candidate.partition("@")[0], uuid.uuid4().hex, datetime.now(UTC)
    change = _ledger(settings).change(
        lambda known: Change(started(plan, rollout_id, known.versions, known.rollouts.get(name), now))
    )
    if change.rollout is not None:
        click.echo(_line(change.rollout))


@command.command()
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--verdicts", type=click.IntRange(0), default=5, show_default=True, help="Show so many of the last ones.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a rollout.")
@click.pass_obj
def status(settings: Settings, name: str | None, verdicts: int, as_json: bool) -> None:
    """Show rollouts, of one model or of all, and what the judge said of them."""
    ledger = _ledger(settings)
    rollouts = [each for each in ledger.read().rollouts.values() if name in (None, each.name)]
    if name and not rollouts:
        raise click.ClickException(f"there was no rollout of {name}")
    said = ledger.verdicts() if verdicts and rollouts else []
    for rollout in rollouts:
        of_it = [verdict for verdict in said if verdict.rollout_id == rollout.id][-verdicts:] if verdicts else []
        if as_json:
            shown = {**asdict(rollout), "verdicts": [asdict(verdict) for verdict in of_it]}
            click.echo(json.dumps(shown, default=lambda moment: moment.isoformat()))
            continue
        click.echo(_line(rollout))
        for verdict in of_it:
            click.echo(f"  {_verdict_line(verdict)}")


@command.command()
@_NAME
@click.pass_obj
def pause(settings: Settings, name: str) -> None:
    """Keep the shares of a model's rollout as they are. The judge still ends a canary that does harm."""
    from streams.rollouts import paused

    _amend(settings, name, paused)


@command.command()
@_NAME
@click.pass_obj
def resume(settings: Settings, name: str) -> None:
    """Go on with a rollout that is paused."""
    from streams.rollouts import resumed

    _amend(settings, name, resumed)


@command.command()
@_NAME
@click.option("--reason", default="by hand", show_default=True, help="Written down.")
@click.pass_obj
def promote(settings: Settings, name: str, reason: str) -> None:
    """Give everybody the candidate: it becomes the stable version, and the rollout ends.

    A blue-green one only switches the first time, so that abort can switch back; the second time it ends.
    """
    from streams.rollouts import promoted

    _amend(settings, name, lambda rollout, now: promoted(rollout, reason, now))


@command.command()
@_NAME
@click.option("--reason", default="by hand", show_default=True, help="Written down.")
@click.pass_obj
def abort(settings: Settings, name: str, reason: str) -> None:
    """Give everybody the stable version again, and end the rollout."""
    from streams.rollouts import aborted

    _amend(settings, name, lambda rollout, now: aborted(rollout, reason, now))


@command.command()
@click.option("--http/--no-http", default=False, help="Serve /healthz, /readyz and /metrics at http.host:http.port.")
@click.pass_obj
def judge(settings: Settings, *, http: bool) -> None:
    """Judge rollouts as results come in. One is enough; of more, one decides. SIGTERM ends it with 0."""
    from functools import partial

    from infra import logs
    from infra.connections import check_connection
    from infra.judging import run_judge
    from infra.runtime import run_process

    settings = settings.checked_fully()
    logs.set_up(settings.log)
    check_connection(settings.connection)
    run_process(partial(run_judge, settings, http), settings.general.grace_s)


def _amend(settings: Settings, name: str, amend: "Callable[[Rollout, datetime], Rollout]") -> None:
    from schemas.errors import ConfigurationError
    from streams.rollout_ledger import Change, Known
    from streams.rollouts import settled

    def decide(known: Known) -> Change:
        if name not in known.rollouts:
            raise ConfigurationError(f"there was no rollout of {name}")
        now = datetime.now(UTC)
        after = amend(known.rollouts[name], now)
        return Change(after, settled(after, known.versions, now))

    change = _ledger(settings).change(decide)
    if change.rollout is not None:
        click.echo(_line(change.rollout))
    for version in change.versions:
        click.echo(f"{version.reference} is {version.stage}", err=True)


def _ledger(settings: Settings) -> "RolloutLedger":
    from infra.connections import check_connection
    from infra.judging import rollout_ledger

    check_connection(settings.connection)
    return rollout_ledger(settings)


def _line(rollout: "Rollout") -> str:
    from schemas.arms import candidate_share

    kind = rollout.kind.replace("_", "-")
    where = f" step {rollout.step + 1} of {len(rollout.steps)}" if rollout.steps else ""
    shares = f"{_percent(candidate_share(rollout))} to {rollout.candidate}, rest to {rollout.stable}"
    seen = f", {_percent(rollout.shadow_share)} seen by both" if rollout.shadow_share else ""
    why = f": {rollout.reason}" if rollout.reason else ""
    return f"{rollout.name}  {kind}{where}  {rollout.state}{why}  {shares}{seen}  since {_moment(rollout.started_at)}"


def _verdict_line(verdict: "Verdict") -> str:
    window = f"{_moment(verdict.window_start)} + {_span(verdict.window_end - verdict.window_start)}"
    both = f"{_percent(verdict.disagreement)} of {verdict.objects} objects in {verdict.pairs} pairs differ"
    why = f"  ({'; '.join(verdict.reasons)})" if verdict.reasons else ""
    arms = f"stable {_arm(verdict.stable)}, candidate {_arm(verdict.candidate)}"
    return f"{window}  {verdict.decision} at {_percent(verdict.share)}{why}  {arms}; {both}"


def _arm(arm: "ArmFigures") -> str:
    return f"{arm.results} results, {arm.failures} failures, p95 {arm.p95_ms:.0f} ms, {arm.boxes_per_image:.2f} boxes"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _span(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
