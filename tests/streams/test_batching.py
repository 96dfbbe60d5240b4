"""The batcher: works as soon as anything waits, overlaps stages, publishes in order, and stops publishing after a failure."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from detectors.curve import LatencyCurve, LearnedCurve
from schemas.arrow import IMAGE_REF
from schemas.records import Lane
from streams.batching import Arrivals, Batcher
from streams.lanes import Part, Run
from streams.ledger import Claim
from streams.sizing import Batching, Capacity
from streams.work import Work

FREE = LatencyCurve(((1, 0.0),))


class ScriptedStep:
    """Records what happens; a batch's inference waits until the test lets it go."""

    def __init__(self) -> None:
        self.gates: dict[int, threading.Event] = {}
        self.publishing: dict[int, threading.Event] = {}
        self.shadowing: dict[int, threading.Event] = {}
        self.shadowed: list[int] = []
        self.prepared: list[list[Any]] = []
        self.published: list[list[Any]] = []
        self.changed = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.failing: set[int] = set()

    async def prepare(self, parts: list[Part]) -> Work:
        records = [record for part in parts for record in part.records]
        self.prepared.append(records)
        self.changed.set()
        return Work(
            parts, records, 0, pa.RecordBatch.from_pylist([], schema=IMAGE_REF), np.arange(len(records), dtype=np.int32)
        )

    def infer(self, work: Work) -> Work:
        if gate := self.gates.get(work.records[0]):
            assert gate.wait(10)
        if work.records[0] in self.failing:
            raise RuntimeError(f"device lost at {work.records[0]}")
        return work

    def publish(self, work: Work) -> None:
        if gate := self.publishing.get(work.records[0]):
            assert gate.wait(10)
        self.published.append(list(work.records))
        self.loop.call_soon_threadsafe(self.changed.set)

    def shadow(self, work: Work) -> None:
        if gate := self.shadowing.get(work.records[0]):
            assert gate.wait(10)
        self.shadowed.append(work.records[0])
        self.loop.call_soon_threadsafe(self.changed.set)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def running(
    step: ScriptedStep,
    policy: Batching | None = None,
    *,
    most: int = 10,
    concurrency: int = 1,
    curve: LatencyCurve = FREE,
) -> AsyncIterator[tuple[Batcher, list[BaseException]]]:
    crashes: list[BaseException] = []
    capacity = Capacity(most, concurrency, LearnedCurve(curve))
    batcher = Batcher(step, policy or Batching(), capacity, crashes.append)
    task = asyncio.create_task(batcher.run())
    yield batcher, crashes
    task.cancel()
    for gate in [*step.gates.values(), *step.publishing.values()]:
        gate.set()
    await batcher.close()


async def busy(batcher: Batcher) -> None:
    """All devices are, and it is known for how long."""
    async with asyncio.timeout(10):
        while batcher._underway.spare_s() <= 0:  # noqa: ASYNC110 - a device thread says so, and wakes nobody
            await asyncio.sleep(0.001)


def run_of(*records: int) -> Run:
    return Run(records, Claim("p", records[-1] + 1, len(records)))


async def test_a_batch_starts_at_once_and_grows_while_the_detector_is_busy() -> None:
    step = ScriptedStep()
    step.gates[0] = threading.Event()
    async with running(step, Batching(lookahead=0)) as (batcher, _):
        batcher.put(Lane.ONLINE, run_of(0))
        await step.until(lambda: step.prepared == [[0]])
        for record in range(1, 7):
            batcher.put(Lane.ONLINE, run_of(record))
        step.gates[0].set()
        await step.until(lambda: len(step.published) == 2)
    assert step.published == [[0], [1, 2, 3, 4, 5, 6]]


async def test_the_next_batch_is_prepared_while_one_is_on_the_detector() -> None:
    step = ScriptedStep()
    step.gates[0] = threading.Event()
    async with running(step, most=2) as (batcher, _):
        batcher.put(Lane.ONLINE, run_of(0, 1, 2, 3, 4, 5))
        await step.until(lambda: len(step.prepared) == 2)
        assert step.published == []
        assert batcher.lanes.waiting[Lane.ONLINE] == 2, "only one batch of lookahead may be gathered"
        step.gates[0].set()
        await step.until(lambda: len(step.published) == 3)


async def test_a_batch_grows_for_as_long_as_it_would_wait_for_a_device_that_is_busy() -> None:
    step = ScriptedStep()
    step.gates[0] = threading.Event()
    async with running(step, curve=LatencyCurve(((1, 60_000.0), (10, 61_000.0)))) as (batcher, _):
        batcher.put(Lane.ONLINE, run_of(0))
        await busy(batcher)
        for record in range(1, 4):
            batcher.put(Lane.ONLINE, run_of(record))
            await asyncio.sleep(0)
        assert step.prepared == [[0]], "the device is busy for a minute"
        step.gates[0].set()
        await step.until(lambda: len(step.published) == 2)
    assert step.published == [[0], [1, 2, 3]]


async def test_a_full_batch_is_prepared_however_long_the_device_is_busy() -> None:
    step = ScriptedStep()
    step.gates[0] = threading.Event()
    async with running(step, most=2, curve=LatencyCurve(((1, 60_000.0), (10, 61_000.0)))) as (batcher, _):
        batcher.put(Lane.ONLINE, run_of(0))
        await busy(batcher)
        batcher.put(Lane.ONLINE, run_of(1, 2))
        await step.until(lambda: len(step.prepared) == 2)
        assert step.published == []
        step.gates[0].set()
        await step.until(lambda: len(step.published) == 2)


async def test_a_detector_that_is_faster_than_kafka_waits_instead_of_piling_up_results() -> None:
    step = ScriptedStep()
    step.publishing[0] = threading.Event()
    async with running(step, most=1) as (batcher, _):
        batcher.put(Lane.ONLINE, run_of(*range(50)))
        await step.until(lambda: len(step.prepared) == 4)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(step.prepared) == 4, "begun and unpublished batches are bounded"
        step.publishing[0].set()
        await step.until(lambda: len(step.published) == 50)
    assert step.published == [[record] for record in range(50)]


async def test_batches_are_published_in_order_of_gathering_when_a_later_one_is_faster() -> None:
    step = ScriptedStep()
    step.gates[0] = threading.Event()
    async with running(step, most=2, concurrency=3) as (batcher, _):
        batcher.put(Lane.ONLINE, run_of(*range(6)))
        await step.until(lambda: len(step.prepared) == 3)
        step.gates[0].set()
        await step.until(lambda: len(step.published) == 3)
    assert step.published == [[0, 1], [2, 3], [4, 5]]


async def test_nothing_is_published_after_a_batch_that_failed() -> None:
    step = ScriptedStep()
    step.failing.add(2)
    step.gates[0] = threading.Event()
    async with running(step, most=2, concurrency=3) as (batcher, crashes):
        batcher.put(Lane.ONLINE, run_of(*range(6)))
        await step.until(lambda: len(step.prepared) == 3)
        step.gates[0].set()
        await batcher.close()
    assert [str(error) for error in crashes] == ["device lost at 2"]
    assert step.published in ([[0, 1]], [])


async def test_room_is_told_when_records_leave_a_full_lane() -> None:
    step = ScriptedStep()
    step.gates[0] = threading.Event()
    async with running(step, Batching(max_waiting=4, lookahead=0), most=2) as (batcher, _):
        batcher.put(Lane.BULK, run_of(*range(7)))
        await step.until(lambda: bool(step.prepared))
        assert not batcher.has_room(Lane.BULK)
        assert batcher.has_room(Lane.ONLINE), "a full bulk lane must not stop online"
        batcher.room.clear()
        step.gates[0].set()
        async with asyncio.timeout(10):
            while not batcher.has_room(Lane.BULK):
                batcher.room.clear()
                await batcher.room.wait()


async def test_an_idle_detector_waits_for_what_makes_its_batch_cheaper() -> None:
    step = ScriptedStep()
    costly = LatencyCurve(((1, 30_000.0), (10, 30_001.0)))
    async with running(step, Batching(max_wait_ms=60_000), curve=costly) as (batcher, _):
        batcher._arrivals.per_s = 0.1
        batcher.put(Lane.ONLINE, run_of(0))
        for _ in range(20):
            await asyncio.sleep(0)
        assert step.prepared == []
        batcher.put(Lane.ONLINE, run_of(*range(1, 10)))
        await step.until(lambda: bool(step.prepared))
    assert step.prepared == [list(range(10))]


async def test_batches_stay_small_enough_for_the_online_target() -> None:
    step = ScriptedStep()
    slow = LatencyCurve(((1, 100.0), (10, 1000.0)))
    async with running(step, Batching(online_target_ms=750), curve=slow) as (batcher, _):
        batcher.put(Lane.BULK, run_of(*range(10)))
        await step.until(lambda: len(step.published) == 5)
    assert [len(records) for records in step.published] == [2] * 5


async def test_bulk_comes_in_short_calls_while_images_come_on_the_online_lane() -> None:
    step = ScriptedStep()
    step.gates[0] = threading.Event()
    slow = LatencyCurve(((1, 20.0), (10, 200.0)))
    async with running(step, Batching(bulk_slice_ms=50, bulk_share=0.0), curve=slow) as (batcher, _):
        batcher.put(Lane.ONLINE, run_of(0))
        await step.until(lambda: bool(step.prepared))
        batcher.put(Lane.BULK, run_of(*range(1, 7)))
        step.gates[0].set()
        await step.until(lambda: len(step.published) == 4)
        batcher._live_until = 0.0
        batcher.put(Lane.BULK, run_of(*range(7, 13)))
        await step.until(lambda: len(step.published) == 5)
    assert step.published == [[0], [1, 2], [3, 4], [5, 6], [*range(7, 13)]]


def test_the_arrival_rate_follows_what_arrives() -> None:
    clock = [0.0]
    arrivals = Arrivals(lambda: clock[0])
    for _ in range(500):
        clock[0] += 0.01
        arrivals.add(2)
    assert arrivals.per_s == pytest.approx(200, rel=0.05)
    clock[0] += 5
    arrivals.add(1)
    assert arrivals.per_s == pytest.approx(0.2, rel=0.05)
