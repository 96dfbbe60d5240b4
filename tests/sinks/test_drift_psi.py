"""The population stability index: its properties, for any histograms."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sinks.drift_psi import chance_psi, grouped, pooled, psi, shares

Counts = NDArray[np.int64]
COUNTS = st.lists(st.integers(0, 10_000), min_size=2, max_size=50).map(lambda counts: np.array(counts, np.int64))


def of(first: Counts, second: Counts) -> float:
    return psi(shares(first), shares(second))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Counts, Counts]:
    size = draw(st.integers(2, 50))
    sides = st.lists(st.integers(0, 10_000), min_size=size, max_size=size)
    return np.array(draw(sides), np.int64), np.array(draw(sides), np.int64)


@given(pairs())
def test_it_is_finite_never_negative_and_the_same_both_ways(pair: tuple[Counts, Counts]) -> None:
    first, second = pair
    assert 0 <= of(first, second) < math.inf
    assert of(first, second) == pytest.approx(of(second, first))


@given(COUNTS)
def test_it_is_nothing_for_the_same_histogram(counts: Counts) -> None:
    assert of(counts, counts) == 0


@given(pairs(), st.randoms(use_true_random=False))
def test_the_order_of_bins_does_not_matter(pair: tuple[Counts, Counts], random: Random) -> None:
    first, second = pair
    order = list(range(len(first)))
    random.shuffle(order)
    assert of(first[order], second[order]) == pytest.approx(of(first, second))


@given(pairs(), st.data())
def test_joining_bins_never_makes_a_difference_larger(pair: tuple[Counts, Counts], data: st.DataObject) -> None:
    before, after = (shares(counts) for counts in pair)
    at = data.draw(st.integers(0, len(before) - 2))
    joined = [np.concatenate([side[:at], [side[at] + side[at + 1]], side[at + 2 :]]) for side in (before, after)]
    assert psi(joined[0], joined[1]) <= psi(before, after) + 1e-9


def test_a_worked_example() -> None:
    # Shares 0.5/0.3/0.2 against 0.4/0.3/0.3: 0.1 ln(5/4) + 0.1 ln(3/2).
    assert psi(np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.3, 0.3])) == pytest.approx(
        0.1 * math.log(1.25) + 0.1 * math.log(1.5)
    )


@given(pairs(), st.integers(1, 20))
def test_grouping_and_pooling_lose_no_count(pair: tuple[Counts, Counts], bins: int) -> None:
    for joined, most in ((grouped(*pair, bins), bins), (pooled(*pair), len(pair[0]) + 1)):
        assert [side.sum() for side in joined] == [side.sum() for side in pair]
        assert len(joined[0]) == len(joined[1]) <= most


def test_groups_hold_about_the_same_share_of_the_reference() -> None:
    reference, _ = grouped(np.full(50, 20, np.int64), np.zeros(50, np.int64))
    assert reference.tolist() == [100] * 10


def test_a_class_that_the_reference_did_not_have_is_seen() -> None:
    reference, window = np.array([700, 300, 0], np.int64), np.array([350, 150, 500], np.int64)
    assert of(*pooled(reference, window)) > 1


@pytest.mark.parametrize(("bins", "quantile"), [(2, 10.828), (5, 18.467), (10, 27.877)])  # 99.9 %, from tables
def test_chance_reaches_what_the_quantiles_of_chi_square_say(bins: int, quantile: float) -> None:
    exact = quantile * (1 / 5_000 + 1 / 200)
    assert chance_psi(bins, 5_000, 200, 0.001) == pytest.approx(exact, rel=0.04)


def test_two_samples_of_one_distribution_are_seldom_beyond_chance() -> None:
    chance, truth = np.random.default_rng(7), np.linspace(1, 2, 10) / np.linspace(1, 2, 10).sum()
    limit = chance_psi(10, 5_000, 200, 0.01)
    beyond = sum(of(chance.multinomial(5_000, truth), chance.multinomial(200, truth)) > limit for _ in range(2_000))
    assert 5 <= beyond <= 40
    assert chance_psi(10, 0, 5, 0.01) == math.inf
    assert chance_psi(1, 5, 5, 0.01) == 0
