"""Arms: sticky, monotone in the shares, fair, and with the same answer everywhere."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.arms import Choice, choose
from schemas.rollouts import Arm, Rollout, RolloutKind, RolloutState

CANARY = Rollout(id="r1", name="m", kind=RolloutKind.CANARY, stable="m@1", candidate="m@2", share=0.3, shadow_share=0.2)
SHARES = st.floats(0, 1)
KEYS = st.text(max_size=20)
ROLLOUTS = st.builds(
    lambda kind, share, shadow_share, state: replace(
        CANARY, kind=kind, share=share, shadow_share=shadow_share, state=state
    ),
    st.sampled_from(RolloutKind),
    SHARES,
    SHARES,
    st.sampled_from(RolloutState),
)


@given(ROLLOUTS, KEYS)
def test_a_choice_is_one_version_and_perhaps_the_other_as_shadow(rollout: Rollout, key: str) -> None:
    choice = choose(rollout, key)
    assert choice.model == (rollout.candidate if choice.arm is Arm.CANDIDATE else rollout.stable)
    assert choice.shadow in (None, {"m@1": "m@2", "m@2": "m@1"}[choice.model])


@given(ROLLOUTS, KEYS)
def test_arms_are_sticky(rollout: Rollout, key: str) -> None:
    """What is not a share, kind or state moves nobody: neither the step nor when it changed."""
    assert choose(replace(rollout, step=rollout.step + 1, reason="looked at"), key) == choose(rollout, key)


@given(ROLLOUTS, KEYS, SHARES)
def test_a_raised_share_moves_keys_to_the_candidate_alone(rollout: Rollout, key: str, share: float) -> None:
    raised = replace(rollout, share=max(rollout.share, share))
    assert choose(rollout, key).arm is not Arm.CANDIDATE or choose(raised, key).arm is Arm.CANDIDATE


@given(ROLLOUTS, KEYS, SHARES)
def test_a_raised_shadow_share_only_adds_shadows_and_moves_no_arm(rollout: Rollout, key: str, share: float) -> None:
    before = choose(rollout, key)
    after = choose(replace(rollout, shadow_share=max(rollout.shadow_share, share)), key)
    assert (after.model, after.arm) == (before.model, before.arm)
    assert before.shadow in (None, after.shadow)


@given(KEYS)
def test_all_and_nothing_have_no_exceptions(key: str) -> None:
    assert choose(replace(CANARY, share=1.0, shadow_share=1.0), key) == Choice("m@2", Arm.CANDIDATE, "m@1")
    assert choose(replace(CANARY, share=0.0, shadow_share=0.0), key) == Choice("m@1", Arm.STABLE)


@given(KEYS, SHARES)
def test_kinds_keep_what_they_promise(key: str, share: float) -> None:
    assert choose(replace(CANARY, kind=RolloutKind.SHADOW, share=share), key).arm is Arm.STABLE
    for kind in (RolloutKind.FIXED, RolloutKind.BLUE_GREEN):
        expected = Arm.CANDIDATE if share == 1.0 else Arm.STABLE
        assert choose(replace(CANARY, kind=kind, share=share), key).arm is expected


@pytest.mark.parametrize("state", [state for state in RolloutState if state not in ("running", "paused")])
def test_an_ended_rollout_has_one_arm(state: RolloutState) -> None:
    choices = {choose(replace(CANARY, state=state, shadow_share=1.0), str(key)) for key in range(50)}
    assert choices == {Choice("m@2", Arm.CANDIDATE) if state is RolloutState.PROMOTED else Choice("m@1", Arm.STABLE)}


def test_shares_are_what_they_say_and_independent() -> None:
    choices = [choose(CANARY, f"camera-{key}") for key in range(10_000)]
    candidates = [choice for choice in choices if choice.arm is Arm.CANDIDATE]
    assert len(candidates) == pytest.approx(3_000, abs=200)
    assert sum(choice.shadow is not None for choice in choices) == pytest.approx(2_000, abs=200)
    assert sum(choice.shadow is not None for choice in candidates) == pytest.approx(600, abs=120)


def test_another_rollout_draws_anew() -> None:
    keys = [str(key) for key in range(1_000)]
    both = sum(choose(CANARY, key).arm is choose(replace(CANARY, id="r2"), key).arm for key in keys)
    assert both == pytest.approx(1_000 * (0.7**2 + 0.3**2), abs=80)


def test_the_draw_never_changes() -> None:
    """Workers of two releases run side by side, and old results say which arm they were: pinned."""
    assert "".join(choose(CANARY, f"camera-{key}").arm[0] for key in range(24)) == "cccssssssssssscscssscssc"
