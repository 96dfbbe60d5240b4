"""Latency by arrival rate: the adaptive batcher next to one that waits for a fixed time, on the same lanes and simulated device."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from detectors.curve import LatencyCurve, LearnedCurve
from schemas.records import Lane
from streams.batching import Batcher
from streams.lanes import Part, Run
from streams.ledger import Claim
from streams.sizing import Batching, Capacity
from streams.work import Work
from tests.benchmarks.report import Section
from tests.benchmarks.stage import Stage

MAX_BATCH, CALL_MS, IMAGE_MS = 64, 4.0, 0.15
RATES = (100, 500, 1000, 2000, 3000, 4000)
SECONDS, SEED = 3.0, 7
TIMERS_MS = (10, 50)
CURVE = LatencyCurve(tuple((size, CALL_MS + IMAGE_MS * size) for size in (1, MAX_BATCH)))
PICTURE = "latency.svg"
_NOTHING = (pa.RecordBatch.from_pylist([], schema=pa.schema([])), np.zeros(0, np.int32))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A record; all that counts is when it came."""

    at: float


class SimulatedStep:
    """A device that takes 4 ms a call and 0.15 ms an image; notes how old each record is when its result is published."""

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.batches = 0

    async def prepare(self, parts: list[Part]) -> Work:
        records = [record for part in parts for record in part.records]
        return Work(parts, records, 0, *_NOTHING)

    def infer(self, work: Work) -> Work:
        time.sleep(CURVE.ms(len(work.records)) / 1000)
        return work

    def publish(self, work: Work) -> None:
        now = time.monotonic()
        self.batches += 1
        self.latencies_ms += [(now - record.at) * 1000 for record in work.records]

    def shadow(self, work: Work) -> None:
        """Nobody's shadow."""


class FixedTimerBatcher(Batcher):
    """Starts a batch when it is full or its oldest record is `timer_ms` old, as Faust's `take(64, within=...)` means to."""

    timer_ms = 0.0

    async def _wait_for_records(self) -> None:
        await super()._wait_for_records()
        oldest: Any = self.lanes._queues[Lane.ONLINE][0]
        deadline = oldest.records[oldest.begun].at + self.timer_ms / 1000
        while len(self.lanes) < MAX_BATCH and (left := deadline - time.monotonic()) > 0:
            await self._wait_for_arrival(left)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Percentiles in milliseconds, and the mean size of a batch."""

    p50: float
    p95: float
    p99: float
    batch: float


def run(stage: Stage) -> Section:
    """Each policy at each rate, with the same arrivals."""
    policies: dict[str, int | None] = {"adaptive": None} | {f"timer {ms} ms": ms for ms in TIMERS_MS}
    found: dict[str, list[Latencies]] = {name: [] for name in policies}
    for rate in RATES:
        for name, timer_ms in policies.items():
            found[name].append(asyncio.run(_measure(rate, timer_ms)))
        stage.say(f"{rate}/s: " + ", ".join(f"{name} p50 {found[name][-1].p50:.0f} ms" for name in policies))
    _draw(found, stage.pictures / PICTURE)
    return Section(
        name="latency",
        title="Latency by arrival rate, adaptive and fixed-timer batching",
        how=(
            f"Poisson arrivals (seed {SEED}, {SECONDS:.0f} s each) and a simulated device of {CALL_MS:g} ms a call and "
            f"{IMAGE_MS:g} ms an image, at most {MAX_BATCH} images a call: {_capacity():,.0f} images/s at best. Both batchers use the same "
            "lanes, threads and look-ahead; the one with the timer starts a batch when it is full or its oldest record has "
            "waited that long. p50 / p95 / p99 in ms from arrival to publication, and the mean batch."
        ),
        columns=("arrivals/s", *policies),
        rows=[(f"{rate:,}", *(_cell(found[name][at]) for name in policies)) for at, rate in enumerate(RATES)],
        picture=PICTURE,
        figures={
            name: {str(rate): [one.p50, one.p95, one.p99] for rate, one in zip(RATES, ones, strict=True)}
            for name, ones in found.items()
        },
    )


async def _measure(rate: int, timer_ms: int | None) -> Latencies:
    step, crashes = SimulatedStep(), list[BaseException]()
    kind = Batcher if timer_ms is None else FixedTimerBatcher
    batcher = kind(step, Batching(), Capacity(MAX_BATCH, 1, LearnedCurve(CURVE)), crashes.append)
    if isinstance(batcher, FixedTimerBatcher):
        batcher.timer_ms = float(timer_ms or 0)
    working = asyncio.create_task(batcher.run())
    due = np.cumsum(np.random.default_rng(SEED).exponential(1 / rate, int(rate * SECONDS))) + time.monotonic()
    await _arrive(batcher, due)
    while batcher.lanes:  # noqa: ASYNC110 - it has no event for that; what was gathered, `close` waits for
        await asyncio.sleep(0.01)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await batcher.close()
    if crashes:
        raise crashes[0]
    p50, p95, p99 = np.percentile(step.latencies_ms, (50, 95, 99))
    return Latencies(float(p50), float(p95), float(p99), len(due) / step.batches)


async def _arrive(batcher: Batcher, due: NDArray[np.float64]) -> None:
    """Put each record when it is due; its age counts from then, even if the event loop is late."""
    at = 0
    while at < len(due):
        await asyncio.sleep(max(0.0, float(due[at]) - time.monotonic()))
        until = int(np.searchsorted(due, time.monotonic(), side="right"))
        for moment in due[at:until].tolist():
            batcher.put(Lane.ONLINE, Run([Arrival(moment)], Claim("", 0, 1)))
        at = max(at, until)


def _capacity() -> float:
    return MAX_BATCH / (CALL_MS + IMAGE_MS * MAX_BATCH) * 1000


def _cell(found: Latencies) -> str:
    return f"{found.p50:.0f} / {found.p95:.0f} / {found.p99:.0f} ({found.batch:.0f})"


def _draw(found: dict[str, list[Latencies]], path: Path) -> None:
    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "sightstream"
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for colour, (name, ones) in zip(("tab:green", "tab:orange", "tab:red"), found.items(), strict=True):
        axes.plot(RATES, [one.p50 for one in ones], color=colour, marker="o", label=f"{name}, p50")
        axes.plot(RATES, [one.p99 for one in ones], color=colour, marker=".", linestyle="--", label=f"{name}, p99")
    _label(axes, RATES)
    axes.axvline(_capacity(), color="grey", linestyle=":", label="what the device can do")
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _label(axes: Any, rates: Sequence[int]) -> None:
    axes.set_yscale("log")
    axes.set_xlabel("arrivals a second")
    axes.set_ylabel("arrival to publication, ms")
    axes.set_ylim(bottom=1)
    axes.set_xticks((*rates,))
    axes.grid(visible=True, alpha=0.3)
