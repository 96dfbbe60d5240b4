"""What follows from a window: every figure that may stop a canary, alone, and what a canary needs to go on."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.models import ModelState, ModelStatus
from schemas.rollouts import ArmFigures, Decision, Rollout, RolloutKind, RolloutState
from streams.judge_rules import decide, judge, refusals_of
from streams.judge_windows import Figures
from tests.support.rollouts import CANARY, NOON, after

GOOD = ArmFigures(results=100, failures=0, p95_ms=100.0, boxes_per_image=2.0)
FINE = Figures(start=NOON, end=after(60), stable=GOOD, candidate=GOOD, pairs=50, objects=100, disagreement=0.01)


def test_a_fine_window_is_one_step_and_after_the_last_one_everybody() -> None:
    on, verdict = judge(CANARY, FINE, after(70))
    assert (on.step, on.share, on.state, verdict.decision) == (1, 0.5, RolloutState.RUNNING, Decision.ADVANCE)
    assert (on.window_start, on.judged_until, on.changed_at) == (after(60), after(60), after(70))
    done, verdict = judge(on, FINE, after(130))
    assert (done.share, done.state, verdict.decision) == (1.0, RolloutState.PROMOTED, Decision.PROMOTE)
    assert (verdict.step, verdict.share) == (1, 0.5), "those of the window"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"candidate": replace(GOOD, failures=2)}, "errors: 2.0% against 0.0%, 1.0% more at most"),
        ({"candidate": replace(GOOD, p95_ms=151.0)}, "latency: p95 151 ms against 100 ms, 1.5 times at most"),
        ({"disagreement": 0.06}, "disagreement: 6.0% of 100 objects in 50 images, 5.0% at most"),
    ],
)
def test_each_breach_alone_takes_a_canary_back_also_while_it_is_paused(bad: dict[str, object], says: str) -> None:
    for state in (RolloutState.RUNNING, RolloutState.PAUSED):
        back, verdict = judge(replace(CANARY, state=state), replace(FINE, **bad), NOON)  # type: ignore[arg-type]
        assert (back.state, back.share, back.reason) == (RolloutState.ROLLED_BACK, 0.0, says)
        assert (verdict.decision, verdict.reasons) == (Decision.ROLL_BACK, (says,))


def test_the_stable_arms_own_troubles_are_not_held_against_the_candidate() -> None:
    slow_and_failing = replace(GOOD, results=90, failures=10, p95_ms=900.0)
    figures = replace(FINE, stable=slow_and_failing, candidate=slow_and_failing)
    assert decide(CANARY, figures)[0] is Decision.ADVANCE


@pytest.mark.parametrize(
    "few",
    [
        {"candidate": ArmFigures(results=10, failures=9)},
        {"stable": ArmFigures(results=19)},
        {"pairs": 19, "disagreement": 1.0},
        {"objects": 19, "disagreement": 1.0},
    ],
)
def test_too_few_outcomes_decide_nothing_and_the_window_goes_on(few: dict[str, object]) -> None:
    on, verdict = judge(CANARY, replace(FINE, **few), NOON)  # type: ignore[arg-type]
    assert (verdict.decision, on.window_start, on.judged_until) == (Decision.HOLD, NOON, after(60))
    assert len(verdict.reasons) == 1
    assert "of 20" in verdict.reasons[0]
    assert (on.share, on.step) == (CANARY.share, CANARY.step)


def test_without_shadows_errors_and_latency_are_judged_alone() -> None:
    alone = replace(CANARY, shadow_share=0.0)
    assert decide(alone, replace(FINE, pairs=0, objects=0, disagreement=0.0))[0] is Decision.ADVANCE


def test_a_paused_canary_does_not_go_on() -> None:
    on, verdict = judge(replace(CANARY, state=RolloutState.PAUSED), FINE, NOON)
    assert (verdict.decision, on.step, on.window_start) == (Decision.HOLD, 0, after(60))


@pytest.mark.parametrize("kind", [kind for kind in RolloutKind if kind is not RolloutKind.CANARY])
def test_whatever_else_is_measured_and_never_decided_about(kind: RolloutKind) -> None:
    rollout = replace(CANARY, kind=kind)
    on, verdict = judge(rollout, replace(FINE, disagreement=0.5), NOON)
    assert verdict.decision is Decision.HOLD
    assert verdict.reasons[0].startswith("disagreement: 50.0%")
    assert on == replace(rollout, window_start=after(60), judged_until=after(60))
    few, _ = judge(rollout, replace(FINE, candidate=ArmFigures()), NOON)
    assert few.window_start == after(60), "there is nothing to wait for"


def test_a_candidate_that_workers_refuse_goes_back_instead_of_waiting_for_ever() -> None:
    said = ModelStatus(worker="w", name="yolo", version="2", state=ModelState.REFUSED, reason="no such file", at=NOON)
    others = [
        replace(said, version="1"),
        replace(said, state=ModelState.LOADING),
        replace(said, at=NOON - timedelta(seconds=1)),
    ]
    assert refusals_of(CANARY, others) == ()
    refusals = refusals_of(CANARY, [*others, said])
    empty = replace(FINE, candidate=ArmFigures())
    back, verdict = judge(CANARY, empty, NOON, refusals)
    assert (back.state, back.reason) == (RolloutState.ROLLED_BACK, "w refuses yolo@2: no such file")
    assert verdict.reasons == refusals
    assert decide(CANARY, FINE, refusals)[0] is Decision.ADVANCE, "others run it"
    assert decide(replace(CANARY, kind=RolloutKind.WEIGHTED), empty, refusals)[0] is Decision.HOLD


FIGURES = st.builds(
    lambda stable, candidate, pairs, disagreement: replace(
        FINE, stable=stable, candidate=candidate, pairs=pairs, objects=2 * pairs, disagreement=disagreement
    ),
    *[st.builds(ArmFigures, results=st.integers(0, 200), failures=st.integers(0, 9), p95_ms=st.floats(0, 1e4))] * 2,
    st.integers(0, 100),
    st.floats(0, 1),
)


@given(st.lists(FIGURES, max_size=8), st.integers(0, 10**6))
def test_a_canary_only_goes_up_step_by_step_until_it_ends_whatever_the_clock_says(
    course: list[Figures], seconds: int
) -> None:
    rollout, decisions = CANARY, []
    for figures in course:
        if not rollout.live:
            break
        before, (rollout, verdict) = rollout, judge(rollout, figures, NOON)
        assert judge(before, figures, NOON + timedelta(seconds=seconds))[1].decision is verdict.decision
        assert rollout.share in (before.share, 0.0, 1.0, *CANARY.steps)
        assert rollout.step - before.step in (0, 1)
        decisions.append(verdict.decision)
    assert decisions.count(Decision.PROMOTE) + decisions.count(Decision.ROLL_BACK) == (not rollout.live)
    assert _ends_in_order(rollout, decisions)


def _ends_in_order(rollout: Rollout, decisions: list[Decision]) -> bool:
    steps = decisions.count(Decision.ADVANCE)
    return rollout.step == steps and (rollout.state is not RolloutState.PROMOTED or steps == len(CANARY.steps) - 1)
