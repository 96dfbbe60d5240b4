"""Windows of a rollout: the same figures in whatever order records were read, and after any restart."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from schemas.codec import Codec, PackagedSchemas
from schemas.moments import to_us
from schemas.records import DeadLetter, DetectionResult, ImageRef, Lane
from schemas.rollouts import Decision, Rollout, RolloutKind, Verdict
from sinks.base import Partition
from streams.judge_clock import EventClock
from streams.judge_policy import JudgePolicy
from streams.judge_records import JudgeReader
from streams.judge_rules import judge
from streams.judge_windows import Outcome, Windows
from tests.support.rollouts import CANARY, NOON, Boxes, Fleet, Model, Shot, after, box

CODEC = Codec(PackagedSchemas())
POLICY = JudgePolicy()


def fine(number: int) -> Boxes:
    """What a healthy model finds: a box or two, now and then none."""
    return tuple(box(x1=200.0 * place) for place in range(number % 3))


def blind(number: int) -> Boxes:
    """Every fifth image shows it nothing."""
    return () if number % 5 == 0 else fine(number)


def outcomes(rollout: Rollout, records: Sequence[DetectionResult | DeadLetter]) -> list[Outcome]:
    """As the judge reads them."""
    reader = JudgeReader(CODEC, lambda: {rollout.id: rollout})
    results = [CODEC.encode(record) for record in records if isinstance(record, DetectionResult)]
    letters = [CODEC.encode(record) for record in records if isinstance(record, DeadLetter)]
    taken = (reader.results(results), reader.letters(letters))
    assert {key for some in taken for key, _ in some.outcomes} <= {rollout.id}
    return [outcome for some in taken for _, outcome in some.outcomes]


def written(shots: Sequence[Shot]) -> list[DetectionResult | DeadLetter]:
    """All that workers wrote."""
    results = [result for shot in shots for result in (*shot.results, *shot.shadows)]
    return [*results, *(letter for shot in shots for letter in shot.letters)]


def course(stable: Model, candidate: Model, latency_ms: tuple[float, float] = (50.0, 50.0)) -> list[Verdict]:
    """All verdicts on a canary that gets 200 images a minute, until it ends."""
    fleet, rollout, verdicts = Fleet(CODEC, stable, candidate, latency_ms), CANARY, list[Verdict]()
    windows = Windows(rollout, POLICY)
    for minute in range(20):
        numbers = range(200 * minute, 200 * (minute + 1))
        shots = list(fleet.shots(rollout, numbers, after(60 * minute), after(60 * (minute + 1))))
        assert all(windows.take(outcome) for outcome in outcomes(rollout, written(shots)))
        assert windows.next_end == after(60 * (minute + 1))
        rollout, verdict = judge(rollout, windows.figures(windows.next_end), NOON)
        verdicts.append(verdict)
        if not rollout.live:
            return verdicts
        windows.follow(rollout)
    raise AssertionError(f"it never ends: {verdicts[-1]}")


def test_a_canary_to_an_equal_model_promotes() -> None:
    assert [verdict.decision for verdict in course(fine, fine)] == [Decision.ADVANCE, Decision.PROMOTE]


def test_a_canary_that_detects_differently_stops_although_latency_and_errors_look_fine() -> None:
    (verdict,) = course(fine, blind)
    assert verdict.decision is Decision.ROLL_BACK
    assert verdict.reasons == (verdict.reasons[0],)
    assert verdict.reasons[0].startswith("disagreement")
    assert verdict.disagreement == pytest.approx(0.2, abs=0.07)
    assert (verdict.stable.failures, verdict.candidate.failures) == (0, 0)
    assert verdict.candidate.p95_ms == verdict.stable.p95_ms


def test_a_canary_that_fails_stops() -> None:
    (verdict,) = course(fine, lambda number: None if number % 10 == 0 else fine(number))
    assert verdict.decision is Decision.ROLL_BACK
    assert [reason.partition(":")[0] for reason in verdict.reasons] == ["errors"]


def test_a_canary_that_is_slow_stops() -> None:
    (verdict,) = course(fine, fine, latency_ms=(50.0, 500.0))
    assert [reason.partition(":")[0] for reason in verdict.reasons] == ["latency"]
    assert verdict.candidate.p95_ms == pytest.approx(500, rel=0.03)


def test_order_and_copies_change_nothing() -> None:
    fleet = Fleet(CODEC, fine, blind)
    shots = list(fleet.shots(CANARY, range(300), NOON, after(120)))
    taken = outcomes(CANARY, written(shots))
    seen = set()
    for seed in range(5):
        windows, mixed = Windows(CANARY, POLICY), taken + taken[::3]
        Random(seed).shuffle(mixed)
        assert all(windows.take(outcome) for outcome in mixed)
        seen.add((repr(windows.figures(after(60))), repr(windows.figures(after(120)))))
    assert len(seen) == 1


def test_a_judge_that_begins_anew_finds_what_the_first_one_had() -> None:
    """Also the pair whose first half belongs to a window that is done with."""
    fleet = Fleet(CODEC, fine, blind)
    shots = list(fleet.shots(CANARY, range(300), NOON, after(120)))
    late_shadows = [replace(r, completed_at=after(61)) for shot in shots[140:150] for r in shot.shadows]
    records = (
        [r for shot in shots for r in shot.results] + [r for shot in shots[150:] for r in shot.shadows] + late_shadows
    )
    first = Windows(CANARY, POLICY)
    for outcome in outcomes(CANARY, records):
        first.take(outcome)
    followed = replace(CANARY, window_start=after(60), judged_until=after(60))
    first.follow(followed)
    second = Windows(followed, POLICY)
    assert all(second.take(outcome) for outcome in outcomes(CANARY, records)), "what was judged before is not late"
    assert first.figures(after(120)) == second.figures(after(120))
    assert second.figures(after(120)).pairs == sum(len(shot.shadows) for shot in shots[150:]) + len(late_shadows)


def test_what_comes_after_its_window_was_judged_is_late() -> None:
    (outcome,) = outcomes(
        CANARY, Fleet(CODEC, fine, fine).shot(replace(CANARY, shadow_share=0.0), 1, after(59)).results
    )
    windows = Windows(CANARY, POLICY)
    windows.follow(replace(CANARY, window_start=after(60), judged_until=after(60)))
    assert not windows.take(outcome)
    assert windows.next_end is None


def test_a_window_that_was_too_small_goes_on() -> None:
    windows = Windows(CANARY, POLICY)
    shots = list(Fleet(CODEC, fine, fine).shots(CANARY, range(300), NOON, after(300)))
    assert all(windows.take(outcome) for outcome in outcomes(CANARY, written(shots)))
    windows.follow(replace(CANARY, judged_until=after(180)))
    assert windows.next_end == after(240)
    figures = windows.figures(after(240))
    assert (figures.start, figures.stable.results + figures.candidate.results) == (NOON, 240)


def test_minutes_in_which_nothing_happens_are_passed_over() -> None:
    windows = Windows(CANARY, POLICY)
    assert windows.next_end is None
    (result,) = Fleet(CODEC, fine, fine).shot(replace(CANARY, shadow_share=0.0), 1, after(3601)).results
    windows.take(*outcomes(CANARY, [result]))
    assert windows.next_end == after(3660)


def test_memory_is_bounded() -> None:
    everything = replace(CANARY, shadow_share=1.0)
    windows = Windows(everything, replace(POLICY, remembered_ids=10, waiting_halves=10))
    shots = list(Fleet(CODEC, fine, fine).shots(CANARY, range(200), NOON, after(60)))
    for outcome in outcomes(everything, [result for shot in shots for result in shot.results]):
        windows.take(outcome)
    assert len(windows._known) == len(windows._halves) == 10


def test_a_shadow_rollout_measures_what_users_do_not_see() -> None:
    shadow = replace(CANARY, kind=RolloutKind.SHADOW, shadow_share=1.0, share=0.0)
    windows = Windows(shadow, POLICY)
    shots = list(Fleet(CODEC, fine, blind).shots(shadow, range(100), NOON, after(60)))
    assert all(windows.take(outcome) for outcome in outcomes(shadow, written(shots)))
    _, verdict = judge(shadow, windows.figures(after(60)), NOON)
    assert (verdict.stable.results, verdict.candidate.results, verdict.pairs) == (100, 100, 100)
    assert verdict.candidate.boxes_per_image < verdict.stable.boxes_per_image


def test_bulk_images_have_no_latency_and_count_otherwise() -> None:
    (result,) = Fleet(CODEC, fine, fine).shot(replace(CANARY, shadow_share=0.0), 1, after(1)).results
    (outcome,) = outcomes(CANARY, [replace(result, lane=Lane.BULK)])
    assert (outcome.latency_ms, outcome.boxes, outcome.at_us) == (None, 1, to_us(after(1)))


def test_what_does_not_concern_a_rollout_is_left_out() -> None:
    reader = JudgeReader(CODEC, lambda: {CANARY.id: CANARY})
    shot = Fleet(CODEC, fine, lambda _: None).shot(replace(CANARY, share=1.0), 7, after(5))
    foreign = Fleet(CODEC, fine, fine).shot(replace(CANARY, id="other"), 7, after(9)).results
    taken = reader.results([CODEC.encode(record) for record in foreign] + [b"junk", None])
    assert (taken.newest_us, list(taken.outcomes)) == (to_us(after(9)), []), "but it tells the time"
    (letter,) = shot.letters
    not_the_models = [replace(letter, stage="fetch"), replace(letter, stage="decode"), replace(letter, value=b"junk")]
    taken = reader.letters([CODEC.encode(each) for each in not_the_models] + [b"junk", None])
    assert (taken.newest_us, list(taken.outcomes)) == (to_us(after(5)), [])
    assert len(reader.letters([CODEC.encode(replace(letter, stage="decode", code="model_unknown"))]).outcomes) == 1


def test_who_asks_for_nothing_is_in_the_rollout_of_the_default() -> None:
    (letter,) = Fleet(CODEC, fine, lambda _: None).shot(replace(CANARY, share=1.0), 7, after(5)).letters
    anything = replace(letter, value=CODEC.encode(replace(_ref(letter), model=None)))
    for default, failures in (("", 0), ("yolo", 1), ("yolo@stable", 0)):
        reader = JudgeReader(CODEC, lambda: {CANARY.id: CANARY}, default)
        assert len(reader.letters([CODEC.encode(anything)]).outcomes) == failures


def test_time_passes_where_something_happened_and_idle_partitions_hold_nobody_up() -> None:
    busy, idle = Partition("detections", 0), Partition("dead-letters", 0)
    clock = EventClock((busy, idle), lateness_us=5)
    assert not clock.has_passed(0)
    clock.read(busy, 104)
    clock.read_to_end(idle)
    assert not clock.has_passed(100), "what is late may still come"
    clock.read(busy, 105)
    assert clock.has_passed(100)
    clock.read(idle, 50)
    assert not clock.has_passed(100), "it is behind, and there may be more of it"
    clock.read_to_end(idle)
    assert clock.has_passed(100)
    clock.read(busy, 1)
    assert clock.newest_us == 105


def _ref(letter: DeadLetter) -> ImageRef:
    return CODEC.decode(letter.value, ImageRef)
