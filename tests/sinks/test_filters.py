"""Filters against the plainest statement of what they mean."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sinks.events import Kind, Subject
from sinks.filters import MAX_VALUES, Audience, Filter, InvalidMessageError, parse_filter

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

NAMES = st.sampled_from(["", "a", "b", "c"])
SOME = st.frozensets(NAMES, max_size=2)
SCORES = st.sampled_from([0.0, 0.25, 0.5, 1.0])

subjects = st.builds(
    Subject,
    kind=st.sampled_from(Kind),
    id=st.just("x"),
    tenant=NAMES,
    batch_id=st.none() | NAMES,
    image_id=NAMES,
    key=NAMES,
    scores=st.dictionaries(NAMES, SCORES, max_size=3),
)
filters = st.builds(
    Filter,
    scope=st.none() | NAMES,
    tenants=SOME,
    batches=SOME,
    images=SOME,
    keys=SOME,
    labels=SOME,
    kinds=st.frozensets(st.sampled_from([str(kind) for kind in Kind]), max_size=2),
    min_score=SCORES,
)


def naive(wanted: Filter, subject: Subject) -> bool:
    if wanted.scope is not None and subject.tenant != wanted.scope:
        return False
    for values, value in (
        (wanted.tenants, subject.tenant),
        (wanted.batches, subject.batch_id),
        (wanted.images, subject.image_id),
        (wanted.keys, subject.key),
        (wanted.kinds, subject.kind),
    ):
        if values and value not in values:
            return False
    if subject.kind == "failed" or (not wanted.labels and wanted.min_score == 0):
        return True
    seen = [(label, score) for label, score in subject.scores.items() if not wanted.labels or label in wanted.labels]
    return any(score >= wanted.min_score for _, score in seen)


@calm
@given(filters, subjects)
def test_a_filter_means_what_the_naive_one_means(wanted: Filter, subject: Subject) -> None:
    assert wanted.matches(subject) == naive(wanted, subject)


@calm
@given(st.lists(filters, max_size=12), st.sets(st.integers(0, 11)), st.lists(subjects, max_size=8))
def test_the_audience_is_everybody_whose_filter_matches_once(
    wanted: list[Filter], gone: set[int], events: list[Subject]
) -> None:
    audience: Audience[int] = Audience()
    for listener, each in enumerate(wanted):
        audience.add(each, listener)
    for listener in gone & set(range(len(wanted))):
        audience.remove(wanted[listener], listener)
    for subject in events:
        expected = [n for n, each in enumerate(wanted) if n not in gone and naive(each, subject)]
        assert sorted(audience.of(subject)) == expected


def test_an_audience_that_everybody_left_holds_nothing() -> None:
    audience: Audience[int] = Audience()
    wanted = Filter(images=frozenset({"a", "b"}))
    audience.add(wanted, 1)
    audience.remove(wanted, 1)
    assert audience._scopes == {}


def test_a_failure_passes_label_and_score_so_that_whoever_waits_for_an_image_hears_of_it() -> None:
    wanted = parse_filter({"image": "i", "label": "dog", "min_score": 0.9})
    failed = Subject(kind=Kind.FAILED, id="f", tenant="t", batch_id=None, image_id="i", key="", scores={})
    assert wanted.matches(failed)
    assert not parse_filter({"image": "i", "kind": "result"}).matches(failed)


@pytest.mark.parametrize("asked", [{"tenant": "b"}, {"tenant": ["a", "b"]}, {"tenant": "unknown"}])
def test_another_tenant_is_refused_whether_there_is_one_or_not(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessageError, match="tenant is your own"):
        parse_filter(asked).within("a")


def test_ones_own_tenant_may_be_named() -> None:
    assert parse_filter({"tenant": "a"}).within("a") == Filter(scope="a") == Filter().within("a")


def test_parsing() -> None:
    assert parse_filter({}) == Filter()
    assert parse_filter({"label": ["dog", "cat"], "min_score": 1}) == Filter(
        labels=frozenset({"dog", "cat"}), min_score=1.0
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"colour": "red"},
        {"label": []},
        {"label": [1]},
        {"label": {"a": 1}},
        {"label": None},
        {"label": ["x"] * (MAX_VALUES + 1)},
        {"image": "x" * 513},
        {"image": ""},
        {"kind": "maybe"},
        {"min_score": "0.5"},
        {"min_score": True},
        {"min_score": 1.1},
        {"min_score": float("nan")},
        {"min_score": 10**400},
    ],
)
def test_what_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessageError):
        parse_filter(fields)
