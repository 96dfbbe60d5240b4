"""Batch sizes and the halving of them, without any device."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.buckets import Batcher, Buckets, Chunk

SIZES = (1, 2, 4, 8, 16, 32)


class ScriptedDevice:
    """Has memory for batches up to `room`; remembers what it was asked for."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.asked: list[int] = []
        self.relieved = 0

    def call(self, items: Sequence[int], size: int) -> list[int]:
        assert 0 < len(items) <= size
        self.asked.append(size)
        if size > self.room:
            raise MemoryError
        return [item * 10 for item in items]

    def relieve(self) -> None:
        self.relieved += 1

    def batcher(self) -> Batcher:
        return Batcher(Buckets(SIZES), lambda error: isinstance(error, MemoryError), self.relieve)


@pytest.mark.parametrize(
    ("count", "bound", "planned"),
    [
        (0, 32, []),
        (1, 32, [(1, 1)]),
        (3, 32, [(3, 4)]),
        (5, 32, [(4, 4), (1, 1)]),
        (6, 32, [(6, 8)]),
        (19, 32, [(16, 16), (3, 4)]),
        (24, 32, [(24, 32)]),
        (70, 32, [(32, 32), (32, 32), (6, 8)]),
        (10, 4, [(4, 4), (4, 4), (2, 2)]),
        (3, 3, [(2, 2), (1, 1)]),
    ],
)
def test_images_are_split_into_buckets(count: int, bound: int, planned: list[tuple[int, int]]) -> None:
    assert Buckets(SIZES).plan(count, bound) == [Chunk(*chunk) for chunk in planned]


def test_a_device_of_one_batch_size_pads_up_to_it() -> None:
    assert Buckets((8,)).plan(11, 8) == [Chunk(8, 8), Chunk(3, 8)]


@given(st.integers(0, 300), st.integers(1, 40), st.sets(st.integers(1, 64), min_size=1))
def test_every_image_is_planned_once_and_no_batch_is_above_the_bound(count: int, bound: int, sizes: set[int]) -> None:
    ordered = tuple(sorted(sizes))
    chunks = Buckets(ordered).plan(count, bound)
    assert sum(chunk.count for chunk in chunks) == count
    assert all(chunk.size in ordered and 0 < chunk.count <= chunk.size for chunk in chunks)
    assert all(chunk.size <= max(bound, ordered[0]) for chunk in chunks)


@given(st.integers(0, 200))
def test_padding_is_at_most_a_quarter_and_exact_buckets_have_none(count: int) -> None:
    assert all(4 * (chunk.size - chunk.count) <= chunk.size for chunk in Buckets(SIZES).plan(count, 32))
    assert all(chunk.size == chunk.count for chunk in Buckets.exact(32).plan(count, 32))


def test_a_batch_without_memory_is_halved_and_the_bound_is_remembered() -> None:
    device = ScriptedDevice(room=7)
    batcher = device.batcher()
    items = list(range(32))
    assert batcher.run(items, device.call) == [item * 10 for item in items]
    assert device.asked == [32, 16, 8, *[4] * 8]
    assert (batcher.bound, device.relieved) == (4, 3)
    device.asked.clear()
    assert batcher.run(items[:9], device.call) == [item * 10 for item in items[:9]]
    assert device.asked == [4, 4, 1], "what once failed is not tried again"


def test_a_device_without_memory_for_one_image_says_so() -> None:
    device = ScriptedDevice(room=0)
    with pytest.raises(MemoryError):
        device.batcher().run([1, 2, 3], device.call)
    assert device.asked == [4, 2, 1]


def test_other_errors_halve_nothing() -> None:
    def call(items: Sequence[int], size: int) -> list[int]:
        raise ValueError("the model, not its memory")

    batcher = ScriptedDevice(room=32).batcher()
    with pytest.raises(ValueError, match="not its memory"):
        batcher.run([1, 2], call)
    assert batcher.bound == 32


def test_work_done_before_the_memory_ran_out_is_kept() -> None:
    device = ScriptedDevice(room=32)
    batcher = device.batcher()
    calls: list[int] = []

    def call(items: Sequence[int], size: int) -> list[int]:
        calls.extend(items)
        device.room = 32 if len(calls) <= 32 else 8
        return device.call(items, size)

    assert batcher.run(list(range(48)), call) == [item * 10 for item in range(48)]
    assert calls.count(0) == 1
    assert calls.count(40) == 2
