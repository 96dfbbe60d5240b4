"""The hub without a network: order, history, queues."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sinks.filters import Filter, InvalidMessageError, parse_filter
from sinks.notifier import Hub, NotifierPolicy, UnavailableError
from sinks.outbox import Close, Outbox
from sinks.ring import Cursor, Lost, Ring
from tests.support.subscribers import event

EVERYTHING = Filter()


def opened(policy: NotifierPolicy | None = None) -> Hub:
    hub = Hub(policy)
    hub.open()
    return hub


def listening(hub: Hub, wanted: Filter = EVERYTHING, since: str | None = None) -> Outbox:
    outbox = hub.join()
    hub.subscribe(outbox, wanted, since)
    return outbox


def read(outbox: Outbox) -> list[dict[str, Any]]:
    """What waits for a client now."""
    if outbox.empty:
        return []
    outbox.tick()
    return [json.loads(message.text) for message in asyncio.run(outbox.take())]


def numbers(messages: list[dict[str, Any]]) -> list[int]:
    return [message["n"] for message in messages if "n" in message]


def test_a_result_that_comes_twice_is_told_once_while_it_is_remembered() -> None:
    hub = opened()
    outbox = listening(hub)
    hub.take([event(1), event(2), event(1)])
    assert numbers(read(outbox)) == [1, 2]


def test_an_empty_id_names_nothing_and_is_always_new() -> None:
    hub = opened()
    outbox = listening(hub)
    hub.take([event(1, id=""), event(2, id="")])
    assert numbers(read(outbox)) == [1, 2]


def test_the_ring_is_bounded_by_count_and_by_bytes() -> None:
    few = Ring(events=3, size_bytes=1 << 20)
    for n in range(10):
        few.take(event(n))
    assert len(few) == 3
    small = Ring(events=1000, size_bytes=1000)
    for n in range(100):
        small.take(event(n, padding=100))
    assert 0 < len(small) < 10
    assert small._bytes <= 1000
    assert len(small._ids) == len(small)


def test_a_cursor_older_than_the_ring_or_from_another_is_not_recovered() -> None:
    hub = opened(NotifierPolicy(history_events=3))
    old = hub.cursor
    hub.take([event(n) for n in range(4)])
    reasons = {}
    for since in (old, "nothing", "another-3", f"{hub.cursor}9"):
        (said,) = read(listening(hub, since=since))
        assert said["recovered"] is False
        assert said["current"] == hub.cursor
        reasons[since] = said["reason"]
    assert list(reasons.values()) == ["too_old", "unknown_cursor", "epoch_changed", "unknown_cursor"]


def test_a_replay_is_whole_or_none() -> None:
    hub = opened(NotifierPolicy(replay_events=5))
    start = hub.cursor
    hub.take([event(n) for n in range(5)])
    assert numbers(read(listening(hub, since=start))) == [0, 1, 2, 3, 4]
    hub.take([event(5)])
    (said,) = read(listening(hub, since=start))
    assert (said["recovered"], said["reason"]) == (False, "too_many")


def test_a_replay_never_fills_the_queue_so_far_that_the_client_is_slow() -> None:
    hub = opened(NotifierPolicy(replay_events=1000, queue_events=10, queue_bytes=2000))
    start = hub.cursor
    hub.take([event(n) for n in range(6)])
    assert read(listening(hub, since=start))[0]["reason"] == "too_many"
    hub.take([event(n, padding=600) for n in range(10, 12)])
    later = str(Cursor(hub._ring.epoch, 6))
    outbox = listening(hub, since=later)
    assert read(outbox)[0]["reason"] == "too_many"
    assert outbox.closing is None


def test_the_first_word_of_a_resume_does_not_move_the_cursor_past_what_follows() -> None:
    hub = opened()
    start = hub.cursor
    hub.take([event(1)])
    said, told = read(listening(hub, since=start))
    assert (said["cursor"], said["recovered"]) == (start, True)
    assert told["cursor"] == hub.cursor


def test_a_reset_is_announced_and_ends_the_epoch() -> None:
    hub = opened()
    outbox = listening(hub)
    before = hub.cursor
    hub.reset("log_truncated")
    hub.take([event(1)])
    _, gap, told = read(outbox)
    assert (gap["type"], gap["recovered"], gap["reason"]) == ("gap", False, "log_truncated")
    assert told["n"] == 1
    assert read(listening(hub, since=before))[0]["reason"] == "epoch_changed"


def test_no_cursor_leads_across_a_reset_but_what_was_told_before_it_is_not_told_again() -> None:
    hub = opened()
    outbox = listening(hub)
    hub.take([event(1)])
    hub.reset("log_truncated")
    hub.take([event(1), event(2)])
    assert numbers(read(outbox)) == [1, 2]
    forged = str(Cursor(hub._ring.epoch, 0))
    assert read(listening(hub, since=forged))[0]["reason"] == "too_old"


def test_a_full_queue_closes_that_client_alone_and_frees_its_memory() -> None:
    hub = opened(NotifierPolicy(queue_events=10))
    slow, other = listening(hub), listening(hub)
    for n in range(0, 20, 5):
        hub.take([event(i) for i in range(n, n + 5)])
        read(other)
    assert slow.closing is not None
    assert slow.closing.code == Close.SLOW
    assert (slow.empty, slow.queued_bytes) == (True, 0)
    assert other.closing is None


def test_a_queue_is_bounded_by_bytes_too() -> None:
    hub = opened(NotifierPolicy(queue_bytes=5000))
    outbox = listening(hub)
    hub.take([event(n, padding=1000) for n in range(6)])
    assert outbox.closing is not None


def test_a_new_subscription_replaces_the_old_one() -> None:
    hub = opened()
    outbox = listening(hub, parse_filter({"image": "i1"}))
    hub.subscribe(outbox, parse_filter({"image": "i2"}))
    hub.take([event(1), event(2)])
    assert numbers(read(outbox)) == [2]


def test_a_heartbeat_moves_a_quiet_subscription_on() -> None:
    hub = opened(NotifierPolicy(history_events=2))
    outbox = listening(hub, parse_filter({"image": "none"}))
    read(outbox)
    hub.take([event(n) for n in range(9)])
    hub.heartbeat()
    (beat,) = read(outbox)
    assert beat["type"] == "heartbeat"
    assert read(listening(hub, since=beat["cursor"]))[0]["recovered"] is True


def test_no_heartbeat_before_a_subscription_nor_before_what_waits() -> None:
    hub = opened()
    silent, behind = hub.join(), listening(hub)
    hub.heartbeat()
    assert silent.empty
    assert [message["type"] for message in read(behind)] == ["subscribed"]


def test_nobody_comes_in_before_the_history_is_read_or_while_draining() -> None:
    hub = Hub()
    with pytest.raises(UnavailableError):
        hub.join()
    hub.open()
    hub.join()
    asyncio.run(Hub().drain())
    closed = opened()
    asyncio.run(closed.drain())
    with pytest.raises(UnavailableError):
        closed.join()


async def test_an_idle_client_is_told_at_once_and_a_busy_one_once_per_tick() -> None:
    hub = opened()
    outbox = listening(hub)
    await outbox.take()
    hub.tick()  # nothing gathered: idle again
    hub.take([event(1)])
    assert [message.kind for message in await outbox.take()] == ["result"]
    hub.take([event(2)])
    hub.take([event(3)])
    taking = asyncio.ensure_future(outbox.take())
    await asyncio.sleep(0)
    assert not taking.done()
    hub.tick()
    assert len(await taking) == 2


async def test_a_busy_client_whose_queue_is_half_full_is_not_kept_waiting_for_the_tick() -> None:
    hub = opened(NotifierPolicy(queue_events=10))
    outbox = listening(hub)
    await outbox.take()
    hub.take([event(n) for n in range(6)])
    assert len(await outbox.take()) == 6


@pytest.mark.parametrize("text", ["", "-", "a", "a-", "-1", "a-x", "a--", "a-²", "a" * 70 + "-1"])
def test_what_is_no_cursor(text: str) -> None:
    with pytest.raises(InvalidMessageError):
        Cursor.parse(text)


@settings(deadline=None)
@given(st.text(alphabet="0123456789abcdef-", min_size=1, max_size=12), st.integers(0, 10**15))
def test_a_cursor_reads_back(epoch: str, sequence: int) -> None:
    assert Cursor.parse(str(Cursor(epoch, sequence))) == Cursor(epoch, sequence)


class Listeners(RuleBasedStateMachine):
    """Clients come, go, come back by cursor, are slow, change what they want; the log repeats itself.

    Each client keeps a model: what it must have heard since its start. It may miss something only if it was told so.
    """

    @initialize(history=st.integers(1, 8), queue=st.integers(4, 12))
    def begin(self, history: int, queue: int) -> None:
        self.hub = opened(NotifierPolicy(history_events=history, queue_events=queue, replay_events=5))
        self.published: list[tuple[int, str]] = []
        self.clients: list[_Model] = []

    @rule(image=st.sampled_from("ab"), count=st.integers(1, 4))
    def publish(self, image: str, count: int) -> None:
        for _ in range(count):
            number = len(self.published)
            self.published.append((number, image))
            self.hub.take([event(number, image_id=image)])

    @rule()
    def repeat(self) -> None:
        """The last record again, as after a worker's death."""
        if self.published:
            number, image = self.published[-1]
            self.hub.take([event(number, image_id=image)])

    @rule(image=st.sampled_from(["a", "b", None]))
    def come(self, image: str | None) -> None:
        self.clients.append(_Model(self, image))

    @rule(which=st.integers(0, 5))
    def read(self, which: int) -> None:
        if which < len(self.clients):
            self.clients[which].read()

    @rule(which=st.integers(0, 5), lossy=st.booleans())
    def reconnect(self, which: int, lossy: bool) -> None:
        """The connection breaks; what waited for the client is lost with it."""
        if which < len(self.clients):
            self.clients[which].reconnect(read_first=not lossy)

    @rule()
    def lose_the_log(self) -> None:
        self.hub.reset("log_truncated")

    @rule()
    def beat(self) -> None:
        self.hub.heartbeat()

    @invariant()
    def nobody_waits_for_too_much(self) -> None:
        for client in getattr(self, "clients", []):
            assert len(client.outbox._queue) <= self.hub.policy.queue_events

    def teardown(self) -> None:
        for client in getattr(self, "clients", []):
            client.read()
            client.check_complete()


class _Model:
    def __init__(self, world: Listeners, image: str | None) -> None:
        self.world, self.image = world, image
        self.wanted = Filter() if image is None else Filter(images=frozenset({image}))
        self.cursor: str | None = None
        self.connect()

    def connect(self) -> None:
        self.outbox = self.world.hub.join()
        self.at = len(self.world.published)
        self.world.hub.subscribe(self.outbox, self.wanted, self.cursor)
        if self.cursor is None:
            self.next = self.at

    def reconnect(self, *, read_first: bool) -> None:
        if read_first:
            self.read()
        self.world.hub.leave(self.outbox)
        self.connect()

    def expected(self) -> list[int]:
        return [n for n, image in self.world.published[self.next :] if self.image in (None, image)]

    def read(self) -> None:
        for message in read(self.outbox):
            self.cursor = message["cursor"]
            if message["type"] == "subscribed" and message["recovered"] is False:
                self.next = self.at
            elif message["type"] == "result":
                assert message["n"] == self.expected()[0], "a gap, a repetition or another order"
                self.next = message["n"] + 1

    def check_complete(self) -> None:
        """Everything was heard, or the client knows that it was closed."""
        assert self.outbox.closing is not None or self.expected() == []


TestListeners = Listeners.TestCase
TestListeners.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_every_reason_for_a_loss_is_told_in_words() -> None:
    assert [str(lost) for lost in Lost] == ["epoch_changed", "too_old", "too_many", "unknown_cursor"]
