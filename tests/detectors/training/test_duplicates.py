"""Near pairs of hashes: none is missed, and none is made up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.training.duplicates import find_pairs, group_pairs


@st.composite
def hashes(draw: st.DrawFn) -> list[int]:
    """Some that are far apart, some that are a few bits from others, some that are equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = [int(value) for value in rng.integers(0, 2**64, draw(st.integers(1, 30)), dtype=np.uint64)]
    for _ in range(draw(st.integers(0, 30))):
        value = values[rng.integers(len(values))]
        for bit in rng.choice(64, rng.integers(0, 12), replace=False):
            value ^= 1 << int(bit)
        values.append(value)
    return [values[place] for place in rng.permutation(len(values))]


@settings(max_examples=60, deadline=None)
@given(hashes(), st.integers(0, 12))
def test_they_are_those_that_comparing_each_with_each_finds(values: list[int], distance: int) -> None:
    every = [
        (one, other)
        for one in range(len(values))
        for other in range(one + 1, len(values))
        if (values[one] ^ values[other]).bit_count() <= distance
    ]
    found = find_pairs(values, distance)
    # Equal ones come as a chain, so that not all pairs do; the groups are the same.
    assert {tuple(pair) for pair in found.tolist()} <= set(every)
    assert group_pairs(len(values), found) == group_pairs(len(values), np.array(every, np.int64).reshape(-1, 2))


def test_thousands_of_equal_ones_are_a_chain() -> None:
    pairs = find_pairs([7] * 5000 + [6], 1)
    assert len(pairs) == 5000
    assert group_pairs(5001, pairs) == [list(range(5001))]


def test_there_may_be_none() -> None:
    assert find_pairs([], 4).shape == (0, 2)
    assert group_pairs(2, find_pairs([0, 2**64 - 1], 4)) == [[0], [1]]
    with pytest.raises(ValueError, match="64 bits"):
        find_pairs([1], 64)
