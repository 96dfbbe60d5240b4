"""What operators do to rollouts, and what they are refused."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from schemas.errors import ConfigurationError
from schemas.models import ModelVersion, Stage
from schemas.rollouts import CanaryGuard, Rollout, RolloutKind, RolloutState
from streams.rollouts import Plan, aborted, paused, promoted, resumed, settled, started
from tests.support.rollouts import CANARY, NOON, after

VERSIONS = {
    version.reference: version
    for version in (
        ModelVersion(name="yolo", version="1", stage=Stage.STABLE),
        ModelVersion(name="yolo", version="2"),
        ModelVersion(name="yolo", version="0", stage=Stage.RETIRED),
        ModelVersion(name="codes", version="1"),
        ModelVersion(name="codes", version="2"),
    )
}
PLAN = Plan(candidate="yolo@2", steps=(0.05, 0.5), shadow_share=0.1)


def begin(plan: Plan, current: Rollout | None = None, now: datetime = NOON) -> Rollout:
    return started(plan, "r1", VERSIONS, current, now)


def test_a_canary_begins_at_its_first_step_and_is_judged_from_the_next_window_on() -> None:
    rollout = begin(PLAN, now=after(5))
    assert (rollout.name, rollout.stable, rollout.candidate) == ("yolo", "yolo@1", "yolo@2")
    assert (rollout.share, rollout.step, rollout.state) == (0.05, 0, RolloutState.RUNNING)
    assert (rollout.started_at, rollout.window_start, rollout.judged_until) == (after(5), after(60), after(60))
    assert begin(PLAN, now=NOON).window_start == NOON


@pytest.mark.parametrize(
    ("kind", "share"),
    [(RolloutKind.FIXED, 1.0), (RolloutKind.WEIGHTED, 0.3), (RolloutKind.SHADOW, 0.0), (RolloutKind.BLUE_GREEN, 0.0)],
)
def test_other_kinds_begin_with_their_share(kind: RolloutKind, share: float) -> None:
    assert begin(Plan(candidate="yolo@2", kind=kind, share=0.3, shadow_share=0.5)).share == share


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (Plan(candidate="yolo@2"), "the steps of a canary rise"),
        (replace(PLAN, steps=(0.5, 0.5)), "the steps of a canary rise"),
        (replace(PLAN, steps=(0.5, 1.0)), "it promotes after the last"),
        (replace(PLAN, steps=(0.0, 0.5)), "above 0 %"),
        (replace(PLAN, shadow_share=1.1), "from 0 % to 100 %"),
        (replace(PLAN, guard=CanaryGuard(window_s=0)), "a window has a length"),
        (Plan(candidate="yolo@2", kind=RolloutKind.SHADOW), "a shadow that sees no image"),
        (replace(PLAN, candidate="yolo@9"), "the registry has no 'yolo@9'"),
        (replace(PLAN, candidate="yolo"), "the registry has no 'yolo'"),
        (replace(PLAN, candidate="yolo@0"), "yolo@0 is retired"),
        (replace(PLAN, candidate="yolo@1"), "must be another version"),
        (replace(PLAN, stable="codes@1"), "must be another version"),
        (replace(PLAN, candidate="codes@1"), "no version of codes is stable"),
    ],
)
def test_what_makes_no_sense_is_refused(plan: Plan, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        begin(plan)


def test_one_rollout_of_a_model_at_a_time() -> None:
    for state in (RolloutState.RUNNING, RolloutState.PAUSED):
        with pytest.raises(ConfigurationError, match="end it first"):
            begin(PLAN, replace(CANARY, state=state))
    assert begin(PLAN, aborted(CANARY, "no", NOON)).id == "r1"


def test_a_version_may_be_compared_with_another_than_the_stable_one() -> None:
    assert begin(replace(PLAN, candidate="codes@1", stable="codes@2")).stable == "codes@2"


def test_pause_resume_and_the_two_ends() -> None:
    held = paused(CANARY, after(1))
    assert (held.state, held.share, held.changed_at) == (RolloutState.PAUSED, CANARY.share, after(1))
    assert resumed(held, after(2)) == replace(CANARY, changed_at=after(2))
    assert promoted(held, "good", after(3)).state is RolloutState.PROMOTED
    ended = aborted(held, "bad", after(3))
    assert (ended.state, ended.share, ended.reason) == (RolloutState.ABORTED, 0.0, "bad")
    refused: list[Callable[[], Rollout]] = [
        lambda: paused(held, NOON),
        lambda: resumed(CANARY, NOON),
        lambda: paused(ended, NOON),
        lambda: promoted(ended, "", NOON),
        lambda: aborted(ended, "", NOON),
    ]
    for act in refused:
        with pytest.raises(ConfigurationError, match="the rollout of yolo to yolo@2 is"):
            act()


def test_blue_green_switches_first_and_ends_then() -> None:
    green = replace(CANARY, kind=RolloutKind.BLUE_GREEN, share=0.0)
    switched = promoted(green, "go", after(1))
    assert (switched.state, switched.share) == (RolloutState.RUNNING, 1.0)
    assert settled(switched, VERSIONS, NOON) == ()
    assert aborted(switched, "back", after(2)).share == 0.0
    assert promoted(switched, "fine", after(2)).state is RolloutState.PROMOTED


def test_a_promoted_candidate_is_stable_and_nothing_else_of_its_name_is() -> None:
    changed = settled(promoted(CANARY, "", NOON), VERSIONS, after(9))
    assert {version.reference: version.stage for version in changed} == {
        "yolo@1": Stage.CANDIDATE,
        "yolo@2": Stage.STABLE,
    }
    assert {version.changed_at for version in changed} == {NOON + timedelta(seconds=9)}
    assert settled(aborted(CANARY, "", NOON), VERSIONS, NOON) == ()
    assert settled(promoted(replace(CANARY, candidate="yolo@9"), "", NOON), VERSIONS, NOON) == ()
