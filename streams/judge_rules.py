"""What follows from a window of a rollout: pure functions of the rollout and of figures, so that every judge decides the same."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from schemas.models import ModelState, ModelStatus
from schemas.rollouts import ArmFigures, Decision, Rollout, RolloutKind, RolloutState, Verdict
from streams.judge_windows import Figures


def judge(rollout: Rollout, figures: Figures, now: datetime, refusals: tuple[str, ...] = ()) -> tuple[Rollout, Verdict]:
    """The verdict on a window, and the rollout after it. `now` is only written down: nothing depends on it. `refusals`: see `decide`."""
    decision, reasons = decide(rollout, figures, refusals)
    verdict = Verdict(
        rollout_id=rollout.id,
        name=rollout.name,
        decision=decision,
        step=rollout.step,
        share=rollout.share,
        window_start=figures.start,
        window_end=figures.end,
        stable=figures.stable,
        candidate=figures.candidate,
        pairs=figures.pairs,
        objects=figures.objects,
        disagreement=figures.disagreement,
        reasons=reasons,
        at=now,
    )
    goes_on = decision is Decision.HOLD and rollout.kind is RolloutKind.CANARY and bool(lacking(rollout, figures))
    judged = replace(rollout, judged_until=figures.end, window_start=rollout.window_start if goes_on else figures.end)
    return _after(judged, decision, reasons, now), verdict


def decide(rollout: Rollout, figures: Figures, refusals: tuple[str, ...] = ()) -> tuple[Decision, tuple[str, ...]]:
    """What to do after a window, and why. Only a canary is decided about; a paused one goes back, but not on.

    A window with too few outcomes decides nothing: it is filled further, unless `refusals` says which workers cannot run the candidate.
    Everything else is measured, and held.
    """
    if missing := lacking(rollout, figures):
        ends = bool(refusals) and rollout.kind is RolloutKind.CANARY
        return (Decision.ROLL_BACK, refusals) if ends else (Decision.HOLD, missing)
    breaches = tuple(_breaches(rollout, figures))
    if rollout.kind is not RolloutKind.CANARY:
        return Decision.HOLD, breaches
    if breaches:
        return Decision.ROLL_BACK, breaches
    if rollout.state is RolloutState.PAUSED:
        return Decision.HOLD, ("paused",)
    if rollout.step + 1 < len(rollout.steps):
        return Decision.ADVANCE, ()
    return Decision.PROMOTE, ()


def lacking(rollout: Rollout, figures: Figures) -> tuple[str, ...]:
    """What a window has too little of to be judged."""
    least = rollout.guard.min_samples
    shadow = rollout.kind is RolloutKind.SHADOW
    counts = {
        "outcomes of the stable version": _outcomes(figures.stable),
        "results of the candidate" if shadow else "outcomes of the candidate": _outcomes(figures.candidate),
    }
    if rollout.shadow_share > 0:
        counts |= {"images that both saw": figures.pairs, "objects in them": figures.objects}
    return tuple(f"{count} of {least} {name}" for name, count in counts.items() if count < least)


def refusals_of(rollout: Rollout, statuses: Iterable[ModelStatus]) -> tuple[str, ...]:
    """What workers say, since the rollout began, that refuse its candidate."""
    return tuple(
        f"{status.worker} refuses {rollout.candidate}: {status.reason}"
        for status in statuses
        if f"{status.name}@{status.version}" == rollout.candidate
        and status.state is ModelState.REFUSED
        and status.at >= rollout.started_at
    )


def _after(rollout: Rollout, decision: Decision, reasons: tuple[str, ...], now: datetime) -> Rollout:
    match decision:
        case Decision.ADVANCE:
            step = rollout.step + 1
            return replace(rollout, step=step, share=rollout.steps[step], reason="", changed_at=now)
        case Decision.PROMOTE:
            passed = f"all {len(rollout.steps)} steps passed"
            return replace(rollout, state=RolloutState.PROMOTED, share=1.0, reason=passed, changed_at=now)
        case Decision.ROLL_BACK:
            why = "; ".join(reasons)
            return replace(rollout, state=RolloutState.ROLLED_BACK, share=0.0, reason=why, changed_at=now)
        case Decision.HOLD:
            return rollout


def _breaches(rollout: Rollout, figures: Figures) -> Iterator[str]:
    guard, stable, candidate = rollout.guard, figures.stable, figures.candidate
    added = _failed(candidate) - _failed(stable)
    if added > guard.max_errors_added:
        yield f"errors: {_failed(candidate):.1%} against {_failed(stable):.1%}, {guard.max_errors_added:.1%} more at most"
    if stable.p95_ms and candidate.p95_ms > guard.max_latency_ratio * stable.p95_ms:
        ratio = guard.max_latency_ratio
        yield f"latency: p95 {candidate.p95_ms:.0f} ms against {stable.p95_ms:.0f} ms, {ratio:g} times at most"
    if figures.disagreement > guard.max_disagreement:
        at = f"of {figures.objects} objects in {figures.pairs} images"
        yield f"disagreement: {figures.disagreement:.1%} {at}, {guard.max_disagreement:.1%} at most"


def _outcomes(arm: ArmFigures) -> int:
    return arm.results + arm.failures


def _failed(arm: ArmFigures) -> float:
    return arm.failures / max(_outcomes(arm), 1)
