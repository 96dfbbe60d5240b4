"""The governor of a replay leaves people's latency what it is, and takes what is left; time is driven by the tests."""

import threading
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.replay_pace import Governor, Sight, Yielding
from streams.replay_policy import ReplayPolicy

POLICY = ReplayPolicy()


@dataclass
class Shop:
    """Workers that finish `capacity` references a second, and an online lane whose p95 grows with what they do for the replay."""

    capacity: float
    base_ms: float = 50.0
    online: bool = True
    harm: float = 1.0  # by how much a full load of bulk raises the p95
    waiting: float = 0.0
    load: float = 0.0
    done: float = 1_000.0  # the lane is not new

    def second(self, sent: float) -> None:
        self.waiting += sent
        done = min(self.waiting, self.capacity)
        self.waiting -= done
        self.done += done
        self.load += (done / self.capacity - self.load) / 3  # a window forgets slowly

    def sight(self) -> Sight:
        p95 = self.base_ms * (1 + self.harm * self.load) if self.online else None
        return Sight(online_lag=0, bulk_lag=round(self.waiting), p95_ms=p95, bulk_done=round(self.done))


def drive(governor: Governor, shop: Shop, seconds: int, start: int = 0) -> list[tuple[float, float | None]]:
    """Sent a second, and the p95 after it."""
    course = []
    for now in range(start, start + seconds):
        sight = shop.sight()
        governor.see(sight, float(now))
        sent = 0.0 if governor.paused else min(governor.rate, governor.room(sight))
        shop.second(sent)
        course.append((sent, shop.sight().p95_ms))
    return course


def test_without_people_it_goes_as_fast_as_the_workers() -> None:
    course = drive(Governor(POLICY), Shop(capacity=200, online=False), 120)
    assert sum(sent for sent, _ in course[-30:]) / 30 > 0.9 * 200


@settings(max_examples=40, deadline=None)
@given(capacity=st.floats(20, 2000), harm=st.floats(0.0, 3.0), base_ms=st.floats(5, 500))
def test_the_p95_settles_within_what_is_allowed(capacity: float, harm: float, base_ms: float) -> None:
    shop = Shop(capacity, base_ms, harm=harm)
    course = drive(Governor(POLICY), shop, 400)[100:]
    worst = sorted(p95 or 0.0 for _, p95 in course)
    allowed = base_ms * (1 + POLICY.hurt)
    least_harm = base_ms * (1 + harm * POLICY.least_rate / capacity)  # what even the lowest rate does
    assert worst[int(len(worst) * 0.9)] <= max(allowed, least_harm) * 1.05
    fair = capacity if harm <= POLICY.hurt else capacity * POLICY.hurt / harm
    assert sum(sent for sent, _ in course) / len(course) > min(0.25 * fair, 0.25 * capacity)


def test_it_becomes_faster_slowly_where_people_wait_and_quickly_where_nobody_does() -> None:
    watched, alone = Governor(POLICY), Governor(POLICY)
    drive(watched, Shop(capacity=5000, harm=0.0), 20)
    drive(alone, Shop(capacity=5000, online=False), 20)
    window = POLICY.first_rate * 2 ** (20 / POLICY.window_s)
    assert watched.rate < window, "what a raise does shows in a window: it doubles in none"
    assert alone.rate > 5 * window


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("capacity", [5.0, 25.0, 400.0])
def test_what_waits_is_bounded_by_what_the_workers_get_done(capacity: float, online: bool) -> None:
    governor, shop = Governor(POLICY), Shop(capacity, online=online, harm=0.0)
    waiting = []
    for now in range(180):
        drive(governor, shop, 1, start=now)
        waiting.append(shop.waiting)
    assert max(waiting) <= max(20, 1.5 * POLICY.ahead_s * capacity)
    assert governor.rate <= max(POLICY.first_rate, 2.5 * capacity), "and the rate is one that can be lowered"


def test_it_measures_before_it_sends_when_the_lane_was_not_empty() -> None:
    governor = Governor(replace(POLICY, window_s=10.0))
    governor.see(Sight(0, bulk_lag=30, p95_ms=80.0), 0.0)
    assert governor.paused, "somebody else's backlog: what people would wait without it is not known"
    governor.see(Sight(0, 0, 60.0), 5.0)
    governor.see(Sight(0, 0, 50.0), 14.0)
    assert governor.paused, "not a whole window yet"
    governor.see(Sight(0, 0, 40.0), 15.0)
    assert not governor.paused
    governor.see(Sight(0, 5, 43.0), 16.0)
    assert governor.rate > POLICY.first_rate * 0.9
    before = governor.rate
    governor.see(Sight(0, 5, 45.0), 17.0)
    assert governor.rate == pytest.approx(before / 2), "a tenth over 40 ms"


def test_it_pauses_while_people_wait_in_a_line_or_nobody_can_say() -> None:
    governor = Governor(POLICY)
    governor.see(Sight(0, 0, None), 0.0)
    assert not governor.paused
    governor.see(Sight(POLICY.online_lag + 1, 0, None), 1.0)
    assert governor.paused
    governor.see(Sight(0, 0, None), 2.0)
    assert not governor.paused
    governor.see(None, 3.0)
    assert governor.paused


def test_it_measures_again_now_and_then() -> None:
    governor = Governor(POLICY)
    shop = Shop(capacity=100)
    drive(governor, shop, 60)
    shop.base_ms = 500.0  # the images of these people are larger
    slow = drive(governor, shop, 540, start=60)
    assert slow[100][0] <= 2 * POLICY.least_rate, "it looks as if the replay were to blame"
    again = drive(governor, shop, 200, start=600)
    assert again[-1][0] > 5 * POLICY.least_rate


def test_a_rate_is_never_exceeded() -> None:
    course = drive(Governor(POLICY, most=25.0), Shop(capacity=200, online=False), 120)
    assert max(sent for sent, _ in course) <= 25.0


def test_a_replay_that_is_stopped_does_not_wait_for_room() -> None:
    stop = threading.Event()
    stop.set()
    Yielding(Governor(POLICY), lambda: None, stop)()


def test_references_go_at_the_rate_and_not_beyond_the_room() -> None:
    clock = [0.0]

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock[0] += timeout or 0.0
            return False

    sights = iter([Sight(0, 0), Sight(0, 20)] + [Sight(0, 0)] * 1000)
    pace = Yielding(Governor(POLICY), lambda: next(sights), Stop(), lambda: clock[0])
    moments = []
    for _ in range(60):
        pace()
        moments.append(clock[0])
    assert sum(moment < 1.0 for moment in moments) <= 14
    assert moments[-1] >= 3.0, "a second without room among them"
