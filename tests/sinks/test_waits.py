"""Waits end the moment the log's tail tells the outcome, whenever that is: before, while or after somebody asked."""

import asyncio
from typing import Any

import pytest

from sinks.events import Kind
from sinks.feeds import Feeds
from sinks.notifier import Hub
from sinks.waits import WaitPolicy, Waits
from tests.support.subscribers import PATIENT_S, event, quick


async def turn() -> None:
    """Let tasks that were just started run until they wait."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_wait_ends_with_the_outcome_and_leaves_nothing_behind() -> None:
    waits = Waits()
    waiting = asyncio.create_task(waits.wait("t", ["i1"], PATIENT_S))
    await turn()
    assert len(waits) == 1
    waits.take(event(2))
    await turn()
    assert not waiting.done()
    waits.take(event(1))
    found = await waiting
    assert {name: one.subject.id for name, one in found.items()} == {"i1": "r1"}
    assert len(waits) == 0


async def test_an_outcome_that_came_just_before_is_found() -> None:
    waits = Waits()
    waits.take(event(1))
    assert list(await waits.wait("t", ["i1"], 0)) == ["i1"]
    assert waits.recent("t", "i1") is not None
    assert waits.recent("t", "i2") is None


async def test_nobody_hears_of_another_tenants_image() -> None:
    waits = Waits()
    waits.take(event(1))
    with waits.on("other", ["i1", "i2"]) as wait:
        waits.take(event(2))
        await wait.finish(0)
        assert not wait.found
        waits.take(event(3, tenant="other", image_id="i2"))
        assert list(wait.found) == ["i2"]


async def test_between_entering_and_waiting_nothing_is_missed() -> None:
    waits = Waits(WaitPolicy(recent=0))  # nothing is remembered
    with waits.on("t", ["i1", "i2"]) as wait:
        waits.take(event(1))  # while the store is being read, say
        finishing = asyncio.create_task(wait.finish(PATIENT_S))
        await turn()
        waits.take(event(2))
        await finishing
        assert sorted(wait.found) == ["i1", "i2"]


async def test_who_knows_an_outcome_from_elsewhere_need_not_wait_for_it() -> None:
    waits = Waits()
    with waits.on("t", ["i1", "i2"]) as wait:
        waits.take(event(1))
        assert not wait.done
        wait.pass_over("i2")
        await wait.finish(PATIENT_S)
        assert (wait.done, list(wait.found)) == (True, ["i1"])


async def test_time_is_up_and_what_came_is_told() -> None:
    waits = Waits()
    waits.take(event(1))
    assert list(await waits.wait("t", ["i1", "i2"], 0.001)) == ["i1"]


async def test_a_result_wins_over_a_failure_in_either_order() -> None:
    waits = Waits()
    for order in ((Kind.FAILED, Kind.RESULT), (Kind.RESULT, Kind.FAILED)):
        for kind in order:
            waits.take(event(7, kind=kind, image_id="-".join(order)))
        recent = waits.recent("t", "-".join(order))
        assert recent is not None
        assert recent.subject.kind is Kind.RESULT


async def test_thousands_wait_at_once_and_each_hears_only_its_own() -> None:
    waits = Waits()
    tasks = [asyncio.create_task(waits.wait("t", [f"i{n}"], PATIENT_S)) for n in range(5000)]
    await turn()
    assert len(waits) == 5000
    await waits.publish([event(n) for n in reversed(range(5000))])
    assert [next(iter((await task).values())).subject.id for task in tasks] == [f"r{n}" for n in range(5000)]
    assert len(waits) == 0


async def test_several_wait_for_the_same_image_and_one_is_cancelled() -> None:
    waits = Waits()
    tasks = [asyncio.create_task(waits.wait("t", ["i1"], PATIENT_S)) for _ in range(3)]
    await turn()
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert len(waits) == 2
    waits.take(event(1))
    assert [list(await task) for task in tasks[1:]] == [["i1"], ["i1"]]


async def test_more_waits_than_the_bound_end_at_once_with_what_is_known() -> None:
    waits = Waits(WaitPolicy(images=2))
    waits.take(event(3))
    with waits.on("t", ["i1", "i2"]):
        assert list(await waits.wait("t", ["i3", "i4"], PATIENT_S)) == ["i3"]
    with waits.on("t", ["i3", "i4"]) as wait:
        assert not wait.broken


@pytest.mark.parametrize("end", [lambda waits: waits.reset("log_truncated"), lambda waits: waits.close()])
async def test_a_gap_or_the_end_wakes_everybody(end: Any) -> None:
    waits = Waits()
    with waits.on("t", ["i1"]) as wait:
        finishing = asyncio.create_task(wait.finish(PATIENT_S))
        await turn()
        end(waits)
        await finishing
        assert wait.broken


async def test_after_the_end_nobody_begins_to_wait() -> None:
    waits = Waits()
    waits.close()
    assert await waits.wait("t", ["i1"], PATIENT_S) == {}


async def test_what_is_remembered_is_bounded_by_count_and_bytes() -> None:
    waits = Waits(WaitPolicy(recent=3))
    for n in [1, 2, 3, 1, 4]:  # told again is younger again
        waits.take(event(n))
    assert [n for n in range(1, 5) if waits.recent("t", f"i{n}")] == [1, 3, 4]
    waits = Waits(WaitPolicy(recent_bytes=10_000))
    for n in range(10):
        waits.take(event(n, padding=2000))
    assert [n for n in range(10) if waits.recent("t", f"i{n}")] == [7, 8, 9]


async def test_a_record_without_an_image_is_nobodys() -> None:
    waits = Waits()
    waits.take(event(1, image_id="", tenant=""))
    assert waits.recent("", "") is None


async def test_one_tail_feeds_waits_and_hub() -> None:
    waits, hub = Waits(), Hub(quick())
    feeds = Feeds(waits, hub)
    before = hub.cursor
    await feeds.publish([event(1)])
    assert waits.recent("t", "i1") is not None
    assert hub.cursor == f"{before[:-1]}1"
    feeds.open()
    assert hub.ready
    with waits.on("t", ["i2"]) as wait:
        feeds.reset("log_truncated")
        assert wait.broken
