"""How batches are sized, on arrivals and a device that exist only as numbers."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.curve import LatencyCurve, LearnedCurve
from schemas.records import Lane
from streams.lanes import Lanes, Run
from streams.ledger import Claim
from streams.sizing import Batching, Capacity, batch_size, size_with_bulk, worth_waiting_s

CPU = LatencyCurve(((1, 20.0), (16, 320.0)))  # in proportion: a bigger batch saves nothing
GPU = LatencyCurve(((1, 8.0), (64, 40.0)))  # a call costs nearly as much as its images


def capacity(curve: LatencyCurve, *, most: int = 64, concurrency: int = 1) -> Capacity:
    return Capacity(most, concurrency, LearnedCurve(curve))


@dataclass
class Device:
    """Serves batches as the batcher feeds them: `lookahead` gathered ahead, first come first served. All times in ms."""

    policy: Batching
    capacity: Capacity
    lanes: Lanes = field(init=False)
    done: list[tuple[Lane, float, float]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lanes = Lanes(self.policy.bulk_share)

    def serve(self, arrivals: Sequence[tuple[float, Lane]], until: float, flood: int) -> None:
        """Serve what arrives, up to `until`, beside a flood of bulk that is there from the beginning."""
        self.lanes.put(Lane.BULK, Run([(Lane.BULK, 0.0)] * flood, Claim("", 0, flood)))
        events = [(at, 0, lane) for at, lane in arrivals]
        heapq.heapify(events)
        free = [0.0] * self.capacity.concurrency
        slots = self.capacity.concurrency + self.policy.lookahead
        while events and events[0][0] <= until:
            now, kind, lane = heapq.heappop(events)
            if kind == 0:
                self.lanes.put(lane, Run([(lane, now)], Claim("", 0, 1)))
            else:
                slots += 1
            while slots and self.lanes:
                slots -= 1
                began = max(now, heapq.heappop(free))
                ended = began + self._gather(began)
                heapq.heappush(free, ended)
                heapq.heappush(events, (ended, 1, Lane.BULK))

    def _gather(self, began: float) -> float:
        size = batch_size(self.policy, self.capacity, self.lanes.waiting[Lane.ONLINE])
        with_bulk = size_with_bulk(self.policy, self.capacity)
        records = [record for part in self.lanes.gather(size, with_bulk) for record in part.records]
        took = self.capacity.curve.now.ms(len(records))
        self.sizes.append(len(records))
        self.done += [(lane, at, began + took) for lane, at in records]
        return took

    def latencies(self, lane: Lane) -> list[float]:
        """From arrival to the end of its batch."""
        return [ended - at for kind, at, ended in self.done if kind is lane]


def poisson(per_s: float, seconds: float, lane: Lane, seed: int = 3) -> list[tuple[float, Lane]]:
    gaps = np.random.default_rng(seed).exponential(1000 / per_s, int(per_s * seconds))
    return [(at, lane) for at in np.cumsum(gaps).tolist()]


@pytest.mark.parametrize(("curve", "rate"), [(CPU, 10.0), (CPU, 25.0), (GPU, 100.0), (GPU, 800.0)])
@pytest.mark.parametrize("target_ms", [200.0, 500.0])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_online_images_meet_their_target_beside_a_flood_of_bulk(
    curve: LatencyCurve, rate: float, target_ms: float, concurrency: int
) -> None:
    device = Device(Batching(online_target_ms=target_ms), capacity(curve, concurrency=concurrency))
    device.serve(poisson(rate, 20, Lane.ONLINE), until=20_000, flood=100_000)
    online = device.latencies(Lane.ONLINE)
    assert len(online) > 0.95 * rate * 20 - 30
    assert np.percentile(online, 95) <= target_ms
    assert len(device.latencies(Lane.BULK)) > 0, "bulk goes on"


def test_without_a_target_the_same_flood_makes_online_wait_for_full_batches() -> None:
    device = Device(Batching(online_target_ms=0, bulk_slice_ms=0), capacity(CPU))
    device.serve(poisson(10, 20, Lane.ONLINE), until=20_000, flood=100_000)
    assert np.percentile(device.latencies(Lane.ONLINE), 50) > 1000


def test_a_flood_of_bulk_costs_online_images_about_a_slice() -> None:
    alone, beside = (Device(Batching(), capacity(CPU)) for _ in range(2))
    for device, flood in ((alone, 0), (beside, 100_000)):
        device.serve(poisson(6, 60, Lane.ONLINE), until=60_000, flood=flood)
    more = np.percentile(beside.latencies(Lane.ONLINE), 95) - np.percentile(alone.latencies(Lane.ONLINE), 95)
    assert more <= 2 * Batching().bulk_slice_ms, "one call on the device, and one before it"
    assert np.percentile(beside.latencies(Lane.ONLINE), 95) < 0.5 * Batching().online_target_ms


def test_bulk_fills_what_online_leaves_where_large_batches_are_cheap() -> None:
    device = Device(Batching(online_target_ms=200), capacity(GPU))
    device.serve(poisson(100, 10, Lane.ONLINE), until=10_000, flood=100_000)
    best = 64 / GPU.ms(64) * 10_000
    assert len(device.done) > 0.9 * best
    assert np.mean(device.sizes) > 55


def test_when_more_waits_than_can_be_done_in_time_batches_are_as_large_as_they_come() -> None:
    here = capacity(GPU)
    policy = Batching(online_target_ms=60)
    small = batch_size(policy, here, online=0)
    assert 1 <= small < 64
    assert batch_size(policy, here, online=5000) == 64


def test_a_detector_that_is_slower_than_the_target_still_works_on_single_images() -> None:
    assert batch_size(Batching(online_target_ms=5), capacity(CPU), online=0) == 1


def test_sizes_follow_calls_that_take_longer_than_when_they_were_measured() -> None:
    curve = LearnedCurve(CPU)
    here = Capacity(64, 2, curve)
    before = batch_size(Batching(), here, online=0)
    for _ in range(100):
        curve.observe(4, 2 * CPU.ms(4))
    after = batch_size(Batching(), here, online=0)
    assert after == pytest.approx(before / 2, abs=1)
    for _ in range(100):
        curve.observe(4, 0.0)
        curve.observe(0, 5.0)
    assert batch_size(Batching(), here, online=0) == after, "a call without images or duration teaches nothing"


@given(
    online=st.integers(0, 10_000),
    target=st.floats(0, 5000),
    largest=st.integers(0, 300),
    most=st.integers(1, 256),
    concurrency=st.integers(1, 8),
)
def test_a_size_is_always_one_that_detector_and_policy_take(
    online: int, target: float, largest: int, most: int, concurrency: int
) -> None:
    policy = Batching(online_target_ms=target, max_batch=largest)
    size = batch_size(policy, capacity(GPU, most=most, concurrency=concurrency), online)
    assert 1 <= size <= min(most, largest or most)


def test_only_a_detector_that_gains_by_it_waits_for_more() -> None:
    assert worth_waiting_s(Batching(), capacity(CPU), waiting=3, arrivals_per_s=1000) == 0
    assert 0 < worth_waiting_s(Batching(), capacity(GPU), waiting=3, arrivals_per_s=1000) <= 0.005
    assert worth_waiting_s(Batching(), capacity(GPU), waiting=3, arrivals_per_s=10) == 0, "nothing would arrive in time"
    assert worth_waiting_s(Batching(), capacity(GPU), waiting=64, arrivals_per_s=1000) == 0, "the batch is full"
    assert worth_waiting_s(Batching(max_wait_ms=0), capacity(GPU), waiting=3, arrivals_per_s=1000) == 0


@given(waiting=st.integers(0, 100), rate=st.floats(0, 1e5), longest=st.floats(0, 50))
def test_a_wait_is_never_longer_than_allowed(waiting: int, rate: float, longest: float) -> None:
    wait_s = worth_waiting_s(Batching(max_wait_ms=longest), capacity(GPU), waiting, rate)
    assert 0 <= wait_s * 1000 <= longest + 1e-6
