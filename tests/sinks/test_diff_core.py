"""Comparing detections: what each change is, and what holds for any two sets of boxes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import Detection
from sinks.diff_core import Change, ImageDiff, Seen, compare
from sinks.diff_policy import DiffPolicy

DOG = Detection(label="dog", class_id=16, score=0.9, x1=10, y1=10, x2=110, y2=110)
EXCHANGED = {Change.ADDED: Change.LOST, Change.LOST: Change.ADDED}

# A coarse grid, so that equal boxes, equal overlaps and boxes without an area come up often.
_steps = st.integers(0, 6)


@st.composite
def detections(draw: st.DrawFn) -> Detection:
    x1, y1 = draw(_steps), draw(_steps)
    return Detection(
        label=draw(st.sampled_from(["cat", "dog", "car"])),
        class_id=0,
        score=draw(st.sampled_from([0.25, 0.3, 0.5, 0.9])),
        x1=x1,
        y1=y1,
        x2=x1 + draw(_steps),
        y2=y1 + draw(_steps),
    )


sides = st.lists(detections(), max_size=12)
policies = st.builds(
    DiffPolicy,
    match_iou=st.sampled_from([0.1, 0.5]),
    same_iou=st.sampled_from([0.6, 0.9]),
    min_score=st.sampled_from([0.0, 0.28, 0.6]),
)


def _counts(diff: ImageDiff) -> dict[Change, int]:
    return {change: diff.count(change) for change in Change}


@pytest.mark.parametrize(
    ("after", "change"),
    [
        (DOG, Change.SAME),
        (replace(DOG, score=0.86), Change.SAME),
        (replace(DOG, x1=12), Change.SAME),
        (replace(DOG, x1=30), Change.MOVED),
        (replace(DOG, score=0.6), Change.RESCORED),
        (replace(DOG, x1=30, score=0.6), Change.MOVED),
        (replace(DOG, label="cat"), Change.RECLASSIFIED),
        (replace(DOG, class_id=3), Change.SAME),
    ],
)
def test_what_became_of_an_object(after: Detection, change: Change) -> None:
    diff = compare(Seen.of([DOG]), Seen.of([after]))
    assert diff.changes == (change,)
    assert (diff.first.tolist(), diff.second.tolist()) == ([0], [0])


def test_an_object_elsewhere_is_lost_here_and_added_there() -> None:
    diff = compare(Seen.of([DOG]), Seen.of([replace(DOG, x1=200, x2=300)]))
    assert diff.changes == (Change.LOST, Change.ADDED)
    assert (diff.first.tolist(), diff.second.tolist(), diff.iou.tolist()) == ([0, -1], [-1, 0], [0, 0])
    assert (diff.objects, diff.disagreed) == (2, 2)


def test_the_same_label_is_matched_before_a_better_overlap_of_another() -> None:
    before = [DOG]
    after = [replace(DOG, label="cat"), replace(DOG, x1=30)]
    assert compare(Seen.of(before), Seen.of(after)).changes == (Change.MOVED, Change.ADDED)


def test_the_best_overlap_is_matched_first() -> None:
    before = [DOG, replace(DOG, x1=30, x2=130)]
    after = [replace(DOG, x1=30, x2=130), DOG]
    diff = compare(Seen.of(before), Seen.of(after))
    assert diff.changes == (Change.SAME, Change.SAME)
    assert diff.second.tolist() == [1, 0]


def test_a_score_that_wavers_around_the_threshold_is_not_lost() -> None:
    rules = DiffPolicy(min_score=0.25)
    sure, unsure = Seen.of([replace(DOG, score=0.26)]), Seen.of([replace(DOG, score=0.24)])
    assert compare(sure, unsure, rules).changes == (Change.SAME,)
    assert compare(sure, Seen.of([]), rules).changes == (Change.LOST,)
    assert compare(unsure, Seen.of([]), rules).changes == ()
    assert compare(unsure, unsure, rules).changes == ()


def test_nothing_and_nothing_is_nothing() -> None:
    assert compare(Seen.of([]), Seen.of([])).objects == 0


@given(first=sides, second=sides, policy=policies)
def test_exchanging_the_sides_exchanges_added_and_lost(
    first: list[Detection], second: list[Detection], policy: DiffPolicy
) -> None:
    there = _counts(compare(Seen.of(first), Seen.of(second), policy))
    back = _counts(compare(Seen.of(second), Seen.of(first), policy))
    assert back == {EXCHANGED.get(change, change): count for change, count in there.items()}


@given(side=sides, policy=policies)
def test_identical_sets_are_all_same(side: list[Detection], policy: DiffPolicy) -> None:
    diff = compare(Seen.of(side), Seen.of(side), policy)
    assert set(diff.changes) <= {Change.SAME}
    assert diff.objects == sum(box.score >= np.float32(policy.min_score) for box in side)


@given(first=sides, second=sides)
def test_counts_add_up(first: list[Detection], second: list[Detection]) -> None:
    diff = compare(Seen.of(first), Seen.of(second))
    assert diff.count(Change.LOST) + (diff.objects - diff.count(Change.ADDED) - diff.count(Change.LOST)) == len(first)
    assert diff.objects - diff.count(Change.LOST) == len(second)
    assert sorted(diff.first[diff.first >= 0].tolist()) == list(range(len(first)))
    assert sorted(diff.second[diff.second >= 0].tolist()) == list(range(len(second)))
    assert sum(_counts(diff).values()) == diff.objects == len(diff.iou)


@given(first=sides, second=sides, data=st.data())
def test_the_order_of_boxes_does_not_matter(
    first: list[Detection], second: list[Detection], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(first)), data.draw(st.permutations(second))
    assert _counts(compare(Seen.of(shuffled[0]), Seen.of(shuffled[1]))) == _counts(
        compare(Seen.of(first), Seen.of(second))
    )
