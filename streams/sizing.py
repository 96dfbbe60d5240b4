"""How large the next batch is, and whether waiting for it to grow pays. Pure: what it knows of the detector is its latency curve."""

from dataclasses import dataclass

from detectors.base import Detector
from detectors.curve import Curve, LatencyCurve, LearnedCurve

# Arrivals come in bunches, and then an image waits for one batch more; sizes leave room for that.
_AIM = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How batches are made.

    `max_batch`: the most records of a batch (0: what the detector takes). `online_target_ms`: how soon an online image is to be done from
    its arrival; batches, bulk in them included, stay small enough for that (0: always as large as they come). `max_wait_ms`: how
    long an idle detector may wait for a batch to grow, which it does only where that saves device time. `bulk_share`: the part of a
    batch that bulk may count on while it waits. `bulk_slice_ms`: how long, while images come on the online lane, a call lasts at most that
    bulk fills up; one image is always allowed (0: as long as any). `lookahead`: batches being fetched and decoded beyond those on the
    detector. `max_waiting`: records queued per lane before fetching pauses.
    """

    max_batch: int = 0
    online_target_ms: float = 500.0
    max_wait_ms: float = 5.0
    bulk_share: float = 0.1
    bulk_slice_ms: float = 50.0
    lookahead: int = 1
    max_waiting: int = 5000


@dataclass(frozen=True, slots=True, eq=False)
class Capacity:
    """What a detector takes: images a call, calls at once, and how long they last."""

    max_batch: int
    concurrency: int
    curve: Curve

    @classmethod
    def of(cls, detector: Detector, curve: Curve | None = None) -> "Capacity":
        """Of `detector`; without a curve its calls count as free, and every batch is as large as what waits."""
        free = LearnedCurve(LatencyCurve(((1, 0.0),)))
        return cls(detector.max_batch, detector.concurrency, curve or free)

    def largest(self, policy: Batching) -> int:
        """The most records of any batch."""
        return min(self.max_batch, policy.max_batch or self.max_batch)


def batch_size(policy: Batching, capacity: Capacity, online: int) -> int:
    """The most records that the next batch may take while `online` records of the online lane wait.

    An image that arrives now waits for the batches begun before it, `lookahead` and those on the detector, and then for its own: with all
    of one size that is 1 + (lookahead + 1) / concurrency calls. Where more waits than can be done in time, the target is lost already, and
    the largest batches are what brings it back soonest.
    """
    largest, curve = capacity.largest(policy), capacity.curve.now
    if policy.online_target_ms <= 0:
        return largest
    calls = 1 + (policy.lookahead + 1) / capacity.concurrency
    fitting = curve.largest_within(_AIM * policy.online_target_ms / calls, largest)
    drained_ms = online / fitting * curve.ms(fitting) / capacity.concurrency
    return largest if drained_ms > policy.online_target_ms else fitting


def size_with_bulk(policy: Batching, capacity: Capacity) -> int:
    """Up to how many records bulk may fill a batch while images come on the online lane.

    A call is not interrupted: whoever comes while it lasts waits for its end, and the longer it is the more of them there are.
    """
    largest = capacity.largest(policy)
    return capacity.curve.now.largest_within(policy.bulk_slice_ms, largest) if policy.bulk_slice_ms > 0 else largest


def worth_waiting_s(policy: Batching, capacity: Capacity, waiting: int, arrivals_per_s: float) -> float:
    """How long an idle detector does well to wait for more than the `waiting` records that it could start with.

    Waiting for `more` records pays where it is shorter than the device time that one call of all saves over two calls. A detector whose
    calls cost in proportion to their images never waits.
    """
    if waiting <= 0 or arrivals_per_s <= 0:
        return 0.0
    curve, room = capacity.curve.now, capacity.largest(policy) - waiting
    best_ms, wait_ms = 0.0, 0.0
    for more in range(1, min(room, int(policy.max_wait_ms * arrivals_per_s / 1000)) + 1):
        needed_ms = more / arrivals_per_s * 1000
        saved_ms = curve.ms(waiting) + curve.ms(more) - curve.ms(waiting + more) - needed_ms
        if saved_ms > best_ms:
            best_ms, wait_ms = saved_ms, needed_ms
    return wait_ms / 1000
