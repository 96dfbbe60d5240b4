"""How many deliveries a second one notifier process makes, and how late.

The hub and its websockets in this process, the clients in another one, both on this machine's loopback. Latency is from `publish` to
the arrival at the client, parsing left out.
"""

import asyncio
import multiprocessing
import re
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection

import aiohttp
import numpy as np
from aiohttp import web

from sinks.api import add_routes
from sinks.events import Event, Kind, Subject
from sinks.notifier import Hub, NotifierPolicy
from tests.benchmarks.report import Section
from tests.benchmarks.stage import Stage

_SENT = re.compile(r'"t":(\d+)')
_SLICES_PER_S = 50

CLIENTS, SECONDS = 500, 3.0
LOADS = ((100, 20.0), (250, 20.0), (500, 100.0))
"""Events a second, and the hub's tick in ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`clients` in `groups`; each of `events_per_s` goes to one group."""

    clients: int
    groups: int
    events_per_s: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. `cores`: CPU seconds of the notifier's process per second. `complete`: every client got every event."""

    deliveries_per_s: float
    p50_ms: float
    p99_ms: float
    cores: float
    complete: bool


def measure(load: Load, tick_ms: float = 20.0) -> Figures:
    """Run one load to its end."""
    return asyncio.run(_serve(load, tick_ms))


async def _serve(load: Load, tick_ms: float) -> Figures:
    hub = Hub(
        NotifierPolicy(tick_ms=tick_ms, connections=20_000, connections_per_address=20_000, connects_per_s=100_000)
    )
    hub.open()
    app = web.Application()
    add_routes(app, hub)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_clients, args=(runner.addresses[0][1], load, theirs), daemon=True
    )
    process.start()
    try:
        await asyncio.to_thread(ours.recv)
        start, cpu = time.monotonic(), time.process_time()
        published = await _publish(hub, load)
        took, cpu = time.monotonic() - start, time.process_time() - cpu
        ours.send(published)
        latencies_ms = np.frombuffer(await asyncio.to_thread(ours.recv_bytes), np.float64)
    finally:
        await runner.cleanup()
        process.join(30)
    expected = published * load.clients // load.groups
    p50, p99 = np.percentile(latencies_ms, [50, 99]) if len(latencies_ms) else (np.nan, np.nan)
    return Figures(len(latencies_ms) / took, float(p50), float(p99), cpu / took, len(latencies_ms) == expected)


async def _publish(hub: Hub, load: Load) -> int:
    """A slice of events at a time, at the load's rate; returns how many there were."""
    slices = int(load.seconds * _SLICES_PER_S)
    per_slice = max(1, load.events_per_s // _SLICES_PER_S)
    start = time.monotonic()
    for number in range(slices):
        await asyncio.sleep(max(0.0, start + number / _SLICES_PER_S - time.monotonic()))
        await hub.publish([_event(number * per_slice + i, load.groups) for i in range(per_slice)])
    return slices * per_slice


def _event(number: int, groups: int) -> Event:
    """An event of about 300 bytes for one group."""
    tenant = f"g{number % groups}"
    subject = Subject(
        kind=Kind.RESULT, id=str(number), tenant=tenant, batch_id=None, image_id=str(number), key="", scores={}
    )
    return Event(subject, f'"id":"{number}","tenant":"{tenant}","pad":"{"x" * 180}","t":{time.monotonic_ns()}}}')


def _clients(port: int, load: Load, pipe: Connection) -> None:
    """The other process: connect, say so, collect latencies until everything published has come or a second passes without any."""
    asyncio.run(_listen(port, load, pipe))


async def _listen(port: int, load: Load, pipe: Connection) -> None:
    latencies: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        sockets = []
        for number in range(load.clients):
            url = f"http://127.0.0.1:{port}/v1/stream?tenant=g{number % load.groups}"
            sockets.append(await session.ws_connect(url, compress=0))
        readers = [asyncio.create_task(_read(socket, latencies)) for socket in sockets]
        pipe.send("connected")
        expected = await asyncio.to_thread(pipe.recv) * load.clients // load.groups
        seen = -1
        while seen < len(latencies) < expected:
            seen = len(latencies)
            await asyncio.sleep(1.0)
        pipe.send_bytes(np.array(latencies).tobytes())
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _read(socket: aiohttp.ClientWebSocketResponse, latencies: list[float]) -> None:
    async for frame in socket:
        now = time.monotonic_ns()
        latencies.extend([(now - int(sent)) / 1e6 for sent in _SENT.findall(frame.data)])


def run(stage: Stage) -> Section:
    """A few loads, one after the other."""
    cells, figures = [], {}
    for events_per_s, tick_ms in LOADS:
        found = measure(Load(clients=CLIENTS, groups=10, events_per_s=events_per_s, seconds=SECONDS), tick_ms)
        figures[f"{events_per_s} events/s, {tick_ms:.0f} ms"] = asdict(found)
        told = (f"{found.deliveries_per_s:,.0f}", f"{found.p50_ms:.0f}", f"{found.p99_ms:.0f}", f"{found.cores:.2f}")
        cells.append((f"{events_per_s}", f"{tick_ms:.0f}", *told, "all" if found.complete else "NOT all"))
        stage.say(f"{events_per_s} events/s: {told[0]} deliveries/s")
    return Section(
        name="notifier",
        title="Deliveries a second of one notifier process",
        how=(
            f"{CLIENTS:,} websocket clients in 10 groups, events of 300 bytes for one group each, {SECONDS:.0f} s a load; the clients "
            "are another process of the same machine and need as much of it. Latency is from `publish` to the arrival at a client."
        ),
        columns=("events/s", "tick ms", "deliveries/s", "p50 ms", "p99 ms", "cores", "arrived"),
        rows=cells,
        figures=figures,
    )
