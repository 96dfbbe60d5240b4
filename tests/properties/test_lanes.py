"""Lanes: batches are full while anything waits, online goes first, bulk gets its share, order within a partition is kept."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from schemas.records import Lane
from streams.lanes import Lanes, Run
from streams.ledger import Claim

RunSpec = tuple[Lane, int, int]  # lane, partition, records


def filled(specs: Sequence[RunSpec], share: float) -> Lanes:
    """Lanes with runs whose records are (lane, partition, sequence number)."""
    lanes, counters = Lanes(share), dict[tuple[Lane, int], int]()
    for lane, partition, size in specs:
        start = counters.get((lane, partition), 0)
        counters[lane, partition] = start + size
        records = [(lane, partition, number) for number in range(start, start + size)]
        lanes.put(lane, Run(records, Claim((lane, partition), start + size, size)))
    return lanes


SPECS = st.lists(st.tuples(st.sampled_from(Lane), st.integers(0, 2), st.integers(1, 20)), max_size=30)
SHARES = st.floats(0, 1)


@given(SPECS, SHARES, st.lists(st.integers(1, 64), min_size=1, max_size=40))
def test_every_batch_is_full_or_empties_the_lanes_and_keeps_order(
    specs: list[RunSpec], share: float, sizes: list[int]
) -> None:
    lanes, seen = filled(specs, share), dict[tuple[Lane, int], int]()
    for most in sizes:
        waiting = len(lanes)
        batch = [record for part in lanes.gather(most) for record in part.records]
        assert len(batch) == min(most, waiting)
        for lane, partition, number in batch:
            assert number == seen.get((lane, partition), 0)
            seen[lane, partition] = number + 1
    assert len(lanes) == sum(size for _, _, size in specs) - sum(seen.values())


@given(SPECS, st.integers(1, 64))
def test_online_goes_first_beyond_the_share_of_bulk(specs: list[RunSpec], most: int) -> None:
    lanes = filled(specs, 0.25)
    online, bulk = lanes.waiting[Lane.ONLINE], lanes.waiting[Lane.BULK]
    batch = [record for part in lanes.gather(most) for record in part.records]
    taken = sum(lane is Lane.BULK for lane, _, _ in batch)
    assert taken <= max(int(0.25 * most), most - online)
    assert online == 0 or bulk == 0 or taken >= min(bulk, int(0.25 * most))


@given(st.floats(0.01, 0.5), st.integers(1, 16))
def test_saturated_online_does_not_starve_bulk_even_in_batches_of_one(share: float, most: int) -> None:
    batches = 400
    lanes = filled([(Lane.ONLINE, 0, batches * most), (Lane.BULK, 0, batches * most)], share)
    bulk = 0
    for _ in range(batches):
        bulk += sum(lane is Lane.BULK for part in lanes.gather(most) for lane, _, _ in part.records)
    assert abs(bulk - share * batches * most) <= 1


@given(SPECS, SHARES, st.integers(0, 50))
def test_what_is_taken_back_is_exactly_what_no_batch_has(specs: list[RunSpec], share: float, most: int) -> None:
    lanes = filled(specs, share)
    begun = {record for part in lanes.gather(most) for record in part.records}
    back = [record for run in lanes.take_back() for record in run.records[run.begun :]]
    assert len(lanes) == 0
    assert begun.isdisjoint(back)
    assert len(begun) + len(back) == sum(size for _, _, size in specs)
