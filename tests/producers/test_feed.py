"""Feeding: never faster than asked, never more in memory than allowed, and a resume that neither skips nor forgets."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.feed import Feed, FeedPolicy, Outcome
from producers.journal import Journal, Progress
from producers.publisher import Receipt
from producers.rate import TokenBucket
from schemas.errors import ConfigurationError, DeliveryError, FatalError, Reason, RejectedError
from schemas.records import ImageRef

RECEIPT = Receipt("images.online", 0, 0)
EAGER = FeedPolicy(save_every_s=0.0)


class Killed(BaseException):
    """The process ends here, whatever stands in `finally` blocks: see `Disk`."""


class Disk:
    """A journal's file; nothing is written any more once the process was killed."""

    def __init__(self) -> None:
        self.progress = Progress(batch_id="b")
        self.dead = False

    def save(self, progress: Progress) -> None:
        if not self.dead:
            self.progress = progress


class Log:
    """Stands for Kafka: keeps what arrives, confirms at once, later or never, and may kill the process at any point."""

    def __init__(self, disk: Disk, script: Iterable[str] = ()) -> None:
        self.disk = disk
        self.script = iter(script)
        self.arrived: list[str] = []
        self.confirmed: set[str] = set()
        self.open: list[tuple[str, Future[Receipt]]] = []

    def publish(self, ref: ImageRef) -> "Future[Receipt]":
        step = next(self.script, "confirm")
        if step == "refuse":
            raise RejectedError(Reason.RECORD_TOO_LARGE, "too large")
        if step == "dead":
            raise FatalError("dead")
        self.arrived.append(ref.id)
        future: Future[Receipt] = Future()
        self.open.append((ref.id, future))
        if step == "kill":
            self.fail_open()
            self.disk.dead = True
            raise Killed
        if step == "fail":
            self.open.pop()
            future.set_exception(DeliveryError("no report"))
        elif step == "later":
            self.open.sort(key=lambda pending: hash(pending[0]))
        else:
            self.confirm_open()
        return future

    def confirm_open(self) -> None:
        for image_id, future in self.open:
            self.confirmed.add(image_id)
            future.set_result(RECEIPT)
        self.open.clear()

    def fail_open(self) -> None:
        for _, future in self.open:
            future.set_exception(DeliveryError("killed"))
        self.open.clear()


def refs(count: int, prefix: str = "i") -> Iterator[ImageRef]:
    return (ImageRef(id=f"{prefix}{n}", uri="s3://b/k") for n in range(count))


def feed(log: Log, policy: FeedPolicy = EAGER) -> Feed:
    return Feed(log, log.disk.progress, policy, save=log.disk.save)


STEPS = st.sampled_from(["confirm", "confirm", "later", "kill", "fail", "refuse"])


@given(count=st.integers(0, 25), runs=st.lists(st.lists(STEPS, max_size=30), max_size=5))
def test_a_resume_never_skips_and_never_forgets(count: int, runs: list[list[str]]) -> None:
    disk = Disk()
    arrived: list[str] = []
    confirmed: set[str] = set()
    refused: set[str] = set()
    for script in [*runs, []]:
        log = Log(disk, script)
        before = disk.progress.confirmed
        source = list(refs(count))
        try:
            feed(log).run(_confirming(source, log))
        except Killed:
            disk.dead = False
        arrived += log.arrived
        confirmed |= log.confirmed
        done = [ref.id for ref in source[: disk.progress.confirmed]]
        refused |= {image_id for image_id in done if image_id not in confirmed}
        assert disk.progress.confirmed >= before, "progress never goes back"
        assert not (refused & confirmed)
        assert all(image_id in confirmed or image_id in refused for image_id in done)
    assert disk.progress.confirmed == count
    assert refused == set(disk.progress.rejected)
    assert {f"i{n}" for n in range(count)} == confirmed | refused, (
        "every image is on the log or was refused, by the end"
    )
    assert set(arrived) >= confirmed


def _confirming(source: list[ImageRef], log: Log) -> Iterator[ImageRef]:
    yield from source
    log.confirm_open()


def test_the_outcome_says_what_was_and_what_was_not_delivered() -> None:
    log = Log(Disk(), ["confirm", "refuse", "later", "fail", "confirm", "confirm"])
    outcome = feed(log).run(_confirming(list(refs(10)), log))
    assert outcome.failed == ("i3",)
    assert "no report" in outcome.error
    assert (outcome.skipped, outcome.rejected) == (0, ("i1",))
    assert outcome.confirmed == len(log.confirmed)
    assert log.disk.progress.confirmed == 3
    assert len(log.arrived) < 10, "nothing new is sent after a failure was seen"

    again = Log(log.disk)
    assert feed(again).run(refs(10)) == Outcome(skipped=3, confirmed=7)
    assert again.arrived[0] == "i3"


def test_a_dead_publisher_is_a_failure_not_a_crash() -> None:
    outcome = feed(Log(Disk(), ["confirm", "dead"])).run(refs(5))
    assert (outcome.confirmed, outcome.failed, outcome.error) == (1, ("i1",), "dead")


def test_a_changed_source_is_found_out() -> None:
    log = Log(Disk())
    feed(log).run(refs(5))
    for other in (refs(5, "j"), refs(4), iter(())):
        with pytest.raises(ConfigurationError, match="source has changed"):
            feed(log).run(other)
    assert feed(log).run(refs(6)) == Outcome(skipped=5, confirmed=1)


def test_a_source_that_breaks_off_leaves_what_was_confirmed_in_the_journal() -> None:
    def broken() -> Iterator[ImageRef]:
        yield from refs(3)
        raise ConfigurationError("m.csv:4: no uri")

    log = Log(Disk())
    with pytest.raises(ConfigurationError, match=r"m\.csv:4"):
        feed(log).run(broken())
    assert log.disk.progress.confirmed == 3


def test_the_window_bounds_what_waits_behind_an_unconfirmed_image() -> None:
    log = Log(Disk(), ["later"] * 1000)
    most = 0

    def counted() -> Iterator[ImageRef]:
        nonlocal most
        for n, ref in enumerate(refs(100)):
            most = max(most, len(log.open))
            if n and n % 10 == 0:
                log.confirm_open()
            yield ref
        log.confirm_open()

    assert feed(log, FeedPolicy(window=10)).run(counted()).confirmed == 100
    assert most <= 10


@given(rate=st.floats(0.1, 1e5), pauses=st.lists(st.floats(0, 3), max_size=60))
def test_never_more_than_rate_times_time_and_the_burst(rate: float, pauses: list[float]) -> None:
    clock = [100.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    bucket = TokenBucket(rate, burst_s=0.1, now=lambda: clock[0], sleep=sleep)
    taken = []
    for pause in pauses:
        clock[0] += pause
        bucket.take()
        taken.append(clock[0])
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            allowed = rate * (taken[last] - start + 0.1) + 1
            assert last - first + 1 <= allowed * (1 + 1e-6) + 1


def test_a_steady_rate_is_reached() -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    bucket = TokenBucket(50, now=lambda: clock[0], sleep=sleep)
    for _ in range(101):
        bucket.take()
    assert clock[0] == pytest.approx(2.0)
    with pytest.raises(ValueError, match="above 0"):
        TokenBucket(0)


def test_the_journal_is_read_back_and_a_foreign_file_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "publish")
    assert journal.load("a/b c") is None
    progress = Progress(batch_id="a/b c", marks={"detections": {"0": 5}}).advanced("i0").advanced("i1", rejected=True)
    journal.save(progress)
    assert journal.load("a/b c") == progress
    assert [path.name for path in (tmp_path / "publish").iterdir()] == ["a%2Fb%20c.json"]
    journal.path("a/b c").write_text('{"x": 1}')
    with pytest.raises(ConfigurationError, match="not a publish journal"):
        journal.load("a/b c")
