"""When the next batch must begin so that no device waits for it."""

from detectors.curve import LatencyCurve, LearnedCurve
from streams.underway import Underway


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def calls_of(seconds: float, concurrency: int) -> tuple[Underway, Clock]:
    clock = Clock()
    return Underway(concurrency, LearnedCurve(LatencyCurve(((1, seconds * 1000),))), clock), clock


def put(underway: Underway, clock: Clock, batch: str, prepare_s: float = 0.0) -> None:
    underway.begin(batch)
    clock.now += prepare_s
    underway.prepared(batch)
    underway.start(batch, 1)


def test_while_a_device_is_free_a_batch_begins_at_once() -> None:
    underway, clock = calls_of(1.0, concurrency=2)
    assert underway.spare_s() <= 0
    put(underway, clock, "a")
    assert underway.spare_s() <= 0


def test_while_all_are_busy_there_is_time_until_the_first_is_free_less_the_preparation() -> None:
    underway, clock = calls_of(1.0, concurrency=2)
    put(underway, clock, "a", prepare_s=0.1)
    put(underway, clock, "b", prepare_s=0.1)
    assert round(underway.spare_s(), 3) == 1.0 - 0.1 - 0.15
    clock.now += 0.8
    assert underway.spare_s() <= 0


def test_a_batch_that_is_still_being_prepared_is_no_reason_to_wait() -> None:
    underway, _ = calls_of(1.0, concurrency=1)
    underway.begin("a")
    assert underway.spare_s() <= 0


def test_what_has_left_its_device_frees_it() -> None:
    underway, clock = calls_of(1.0, concurrency=1)
    put(underway, clock, "a")
    assert underway.spare_s() > 0
    underway.leave("a")
    assert underway.spare_s() <= 0


def test_slow_preparations_are_remembered_for_a_while() -> None:
    underway, clock = calls_of(10.0, concurrency=1)
    put(underway, clock, "slow", prepare_s=2.0)
    underway.leave("slow")
    put(underway, clock, "quick")
    assert 10.0 - 2.0 * 1.5 < underway.spare_s() < 10.0 - 1.0
