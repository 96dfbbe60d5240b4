"""What operators do to rollouts: pure functions from what there is to what is to be, which say why they refuse."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from schemas.errors import ConfigurationError
from schemas.models import ModelVersion, Stage
from schemas.moments import from_us, to_us
from schemas.rollouts import CanaryGuard, Rollout, RolloutKind, RolloutState


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A rollout that is wanted. `candidate` and `stable` are `name@version`; `stable` empty: the registry's. Shares are 0..1."""

    candidate: str
    kind: RolloutKind = RolloutKind.CANARY
    stable: str = ""
    steps: tuple[float, ...] = ()
    share: float = 0.0
    shadow_share: float = 0.0
    guard: CanaryGuard = field(default_factory=CanaryGuard)


def started(
    plan: Plan, rollout_id: str, versions: Mapping[str, ModelVersion], current: Rollout | None, now: datetime
) -> Rollout:
    """The rollout that a plan begins, where `current` is the last one of the same model. Raises ConfigurationError."""
    _check_shares(plan)
    if current is not None and current.live:
        raise ConfigurationError(f"a rollout of {current.name} to {current.candidate} is {current.state}: end it first")
    candidate = _known(plan.candidate, versions)
    stable = _known(plan.stable, versions) if plan.stable else _stable(candidate.name, versions)
    if candidate.stage is Stage.RETIRED:
        raise ConfigurationError(f"{candidate.reference} is retired")
    if stable.name != candidate.name or stable.reference == candidate.reference:
        raise ConfigurationError(f"{candidate.reference} must be another version of what is stable, {stable.reference}")
    first = _next_window(now, plan.guard.window_s)
    return Rollout(
        id=rollout_id,
        name=candidate.name,
        kind=plan.kind,
        stable=stable.reference,
        candidate=candidate.reference,
        steps=plan.steps,
        share=_first_share(plan),
        shadow_share=plan.shadow_share,
        guard=plan.guard,
        started_at=now,
        changed_at=now,
        window_start=first,
        judged_until=first,
    )


def paused(rollout: Rollout, now: datetime) -> Rollout:
    """Keep the shares as they are. Raises ConfigurationError where it does not run."""
    _must_be(rollout, RolloutState.RUNNING)
    return replace(rollout, state=RolloutState.PAUSED, changed_at=now)


def resumed(rollout: Rollout, now: datetime) -> Rollout:
    """Go on. Raises ConfigurationError where it is not paused."""
    _must_be(rollout, RolloutState.PAUSED)
    return replace(rollout, state=RolloutState.RUNNING, changed_at=now)


def aborted(rollout: Rollout, reason: str, now: datetime) -> Rollout:
    """Everybody gets the stable version again. Raises ConfigurationError where it has ended."""
    _must_be(rollout, RolloutState.RUNNING, RolloutState.PAUSED)
    return replace(rollout, state=RolloutState.ABORTED, share=0.0, reason=reason, changed_at=now)


def promoted(rollout: Rollout, reason: str, now: datetime) -> Rollout:
    """Everybody gets the candidate, and the rollout ends; of `blue_green` the first time only the former. Raises ConfigurationError."""
    _must_be(rollout, RolloutState.RUNNING, RolloutState.PAUSED)
    if rollout.kind is RolloutKind.BLUE_GREEN and rollout.share < 1.0:
        return replace(rollout, share=1.0, reason=reason, changed_at=now)
    return replace(rollout, state=RolloutState.PROMOTED, share=1.0, reason=reason, changed_at=now)


def settled(rollout: Rollout, versions: Mapping[str, ModelVersion], now: datetime) -> tuple[ModelVersion, ...]:
    """The versions that change with a rollout: the candidate of a promoted one is stable from now on, whatever was is a candidate again."""
    if rollout.state is not RolloutState.PROMOTED or rollout.candidate not in versions:
        return ()
    stages = {
        version.reference: Stage.STABLE if version.reference == rollout.candidate else Stage.CANDIDATE
        for version in versions.values()
        if version.name == rollout.name and (version.stage is Stage.STABLE or version.reference == rollout.candidate)
    }
    return tuple(replace(versions[reference], stage=stage, changed_at=now) for reference, stage in stages.items())


def _check_shares(plan: Plan) -> None:
    if plan.kind is RolloutKind.CANARY:
        rising = all(before < after for before, after in zip((0.0, *plan.steps), (*plan.steps, 1.0), strict=True))
        if not plan.steps or not rising:
            raise ConfigurationError(
                "the steps of a canary rise, each above 0 % and below 100 %: it promotes after the last"
            )
    if plan.kind is RolloutKind.SHADOW and not plan.shadow_share:
        raise ConfigurationError("a shadow that sees no image is none: its share must be above 0 %")
    if not (0 <= plan.share <= 1 and 0 <= plan.shadow_share <= 1):
        raise ConfigurationError("a share is from 0 % to 100 %")
    if plan.guard.window_s <= 0 or plan.guard.min_samples < 1:
        raise ConfigurationError("a window has a length, and at least one sample")


def _first_share(plan: Plan) -> float:
    match plan.kind:
        case RolloutKind.CANARY:
            return plan.steps[0]
        case RolloutKind.FIXED:
            return 1.0
        case RolloutKind.WEIGHTED:
            return plan.share
        case RolloutKind.SHADOW | RolloutKind.BLUE_GREEN:
            return 0.0


def _next_window(now: datetime, window_s: float) -> datetime:
    """The first begin of a window on the grid: until then workers hear of the rollout and load the candidate."""
    step_us = round(window_s * 1e6)
    return from_us(-(-to_us(now) // step_us) * step_us)


def _known(reference: str, versions: Mapping[str, ModelVersion]) -> ModelVersion:
    if reference not in versions:
        raise ConfigurationError(f"the registry has no {reference!r}: `sightstream models list` shows what it has")
    return versions[reference]


def _stable(name: str, versions: Mapping[str, ModelVersion]) -> ModelVersion:
    stable = [version for version in versions.values() if version.name == name and version.stage is Stage.STABLE]
    if not stable:
        raise ConfigurationError(f"no version of {name} is stable: promote one first (`sightstream models promote`)")
    return max(stable, key=lambda version: (version.changed_at, version.version))


def _must_be(rollout: Rollout, *states: RolloutState) -> None:
    if rollout.state not in states:
        raise ConfigurationError(f"the rollout of {rollout.name} to {rollout.candidate} is {rollout.state}")
