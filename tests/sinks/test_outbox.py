"""One client's queue: written to directly while the client keeps up, by its task while it does not."""

import asyncio
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.frames import Frames
from sinks.notifier import Hub
from sinks.outbox import Close, Closing, Outbox
from sinks.ring import Message
from tests.support.subscribers import connected, event, quick, serving


def message(number: int, padding: int = 0) -> Message:
    return Message("result", f"e-{number}", f'{{"n":{number},"pad":"{"x" * padding}"}}')


class Wire:
    """A socket that takes what is written while `takes` is true; `told` is what the client got, by either way."""

    def __init__(self) -> None:
        self.takes = True
        self.told: list[Message] = []
        self.outbox = Outbox(1000, 1 << 20, set())
        self.outbox.attach(self.write_now)

    def write_now(self, messages: Sequence[Message]) -> bool:
        if self.takes:
            self.told += messages
        return self.takes

    async def serve(self) -> None:
        """The task that takes."""
        while messages := await self.outbox.take():
            self.told += messages


async def settle() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_offered_at_once_is_one_write_without_the_task() -> None:
    wire = Wire()
    given_to_task = asyncio.ensure_future(wire.outbox.take())
    wire.outbox.offer(message(1))
    wire.outbox.offer(message(2))
    assert wire.told == []
    await settle()
    assert [each.cursor for each in wire.told] == ["e-1", "e-2"]
    assert not given_to_task.done()
    given_to_task.cancel()


async def test_the_task_goes_on_where_what_it_was_woken_for_was_written_meanwhile() -> None:
    wire = Wire()
    wire.takes = False
    task = asyncio.create_task(wire.serve())
    await settle()
    wire.outbox.offer(message(1))
    wire.outbox._let_go()  # the socket is full: the task is woken
    wire.takes = True
    wire.outbox.tick()  # and has room again before the task runs
    await settle()
    assert not task.done()
    wire.outbox.finish(Closing(Close.RESTART, "restart"))
    await task
    assert [each.cursor for each in wire.told] == ["e-1"]


async def test_what_waits_when_a_client_is_closed_is_left_to_the_task() -> None:
    wire = Wire()
    wire.outbox.offer(message(1))
    wire.outbox.finish(Closing(Close.LIFETIME, "lifetime"))
    await settle()
    assert wire.told == []
    await wire.serve()
    assert [each.cursor for each in wire.told] == ["e-1"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["offer", "tick", "full", "free", "run"]), max_size=60))
def test_by_whichever_way_everything_is_told_once_and_in_order(steps: list[str]) -> None:
    async def play() -> None:
        wire = Wire()
        task = asyncio.create_task(wire.serve())
        offered = 0
        for step in steps:
            if step == "offer":
                offered += 1
                wire.outbox.offer(message(offered))
            elif step == "tick":
                wire.outbox.tick()
            elif step == "run":
                await asyncio.sleep(0)
            else:
                wire.takes = step == "free"
        wire.outbox.finish(Closing(Close.RESTART, "restart"))
        await task
        assert [each.cursor for each in wire.told] == [f"e-{number + 1}" for number in range(offered)]

    asyncio.run(play())


def parsed(frame: bytes) -> list[dict[str, object]]:
    """What is in a frame, read as RFC 6455 says."""
    assert frame[0] == 0x81
    size, start = frame[1], 2
    if size == 126:
        size, start = int.from_bytes(frame[2:4], "big"), 4
        assert size > 125
    elif size == 127:
        size, start = int.from_bytes(frame[2:10], "big"), 10
        assert size > 0xFFFF
    assert len(frame) == start + size
    told: list[dict[str, object]] = json.loads(frame[start:])
    return told


@pytest.mark.parametrize("size", [25, 125, 126, 127, 65_535, 65_536, 200_000])
def test_a_frame_of_any_length_reads_back(size: int) -> None:
    empty = len(Frames().of([message(7)])) - 2
    frame = Frames().of([message(7, padding=size - empty)])
    assert parsed(frame)[0]["n"] == 7


def test_who_wants_the_same_gets_the_same_bytes() -> None:
    frames, one, other = Frames(), message(1), message(2)
    assert frames.of([one, other]) is frames.of([one, other])
    assert parsed(frames.of([other])) == [json.loads(other.text)]
    for number in range(1000):
        frames.of([message(number, padding=5000)])
    assert len(frames._frames) <= 64


async def test_a_client_reads_frames_of_all_lengths_on_a_real_socket() -> None:
    hub = Hub(quick())
    async with serving(hub) as server, connected(server, "?tenant=t") as client:
        await client.hear_type("subscribed")
        for number, padding in enumerate((0, 10, 100, 60_000, 70_000, 300_000)):
            hub.take([event(number, padding=padding)])
            await client.hear_events(number + 1)
        hub.take([event(number) for number in range(6, 400)])
        assert await client.hear_events(400) == list(range(400))
