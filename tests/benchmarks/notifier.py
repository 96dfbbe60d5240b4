"""How many deliveries a second one process makes, and how late.

Results go to a real Kafka; one process follows it and serves websockets, another one listens, a third publishes, all on one machine.
Latency is from just before a record is handed to the producer to the arrival at the client, parsing left out.
"""

import asyncio
import multiprocessing
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from uuid import uuid4

import numpy as np
from aiohttp import web

from producers.publisher import Publisher
from schemas.codec import Codec, PackagedSchemas
from schemas.connection import KafkaConnection
from schemas.identity import Principal, Scope
from schemas.records import Detection, DetectionResult
from schemas.topics import Topics
from sinks import metrics
from sinks.access import Access
from sinks.api import add_routes
from sinks.notifier import Hub, NotifierPolicy
from sinks.outbox import Close
from streams.tail import Tail
from tests.benchmarks.listeners import Listeners
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Stage
from tests.support.kafka import create_topics, delete_topics
from tests.support.stalled import stalled_clients
from tests.support.subscribers import knowing

_SLICES_PER_S = 50
_TENANTS = 10
_PATIENT_S = 60.0
_SEND_BYTES = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`clients` of ten tenants, each of which hears a tenth of `events_per_s`; beside them `stalled` ones that never read."""

    clients: int
    events_per_s: int
    stalled: int = 0
    seconds: float = 15.0

    @property
    def slices(self) -> int:
        """Times at which something is published."""
        return int(self.seconds * _SLICES_PER_S)

    @property
    def per_slice(self) -> int:
        """Events at each of them."""
        return max(1, self.events_per_s // _SLICES_PER_S)


LOADS = (
    Load(clients=500, events_per_s=100),
    Load(clients=2_000, events_per_s=100),
    Load(clients=2_000, events_per_s=500, stalled=20),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. `cores`: CPU seconds of the serving process per second, Kafka's client in it.

    `complete`: every client got each of its events. `dropped`: clients closed as slow.
    """

    deliveries_per_s: float
    p50_ms: float
    p99_ms: float
    cores: float
    complete: bool
    dropped: int


def measure(load: Load, connection: KafkaConnection) -> Figures:
    """Run one load to its end, on topics of its own."""
    _allow_sockets()
    topics = Topics(f"bench{uuid4().hex[:8]}.")
    create_topics(connection, topics)
    try:
        return asyncio.run(_measure(load, connection, topics))
    finally:
        delete_topics(connection, [topic.name for topic in topics.catalogue()])


async def _measure(load: Load, connection: KafkaConnection, topics: Topics) -> Figures:
    spawned = multiprocessing.get_context("spawn")
    ours, theirs = spawned.Pipe()
    slow = metrics.ws_disconnects.labels(str(int(Close.SLOW)))
    dropped = _value(slow)
    expected = load.slices * load.per_slice * load.clients // _TENANTS
    async with _served(connection, topics) as port:
        clients = spawned.Process(target=_clients, args=(port, load, theirs), daemon=True)
        publisher = spawned.Process(target=_publish, args=(load, connection, topics, theirs), daemon=True)
        clients.start()
        try:
            await asyncio.to_thread(ours.recv)
            publisher.start()
            await asyncio.to_thread(ours.recv)
            start, cpu = time.monotonic(), time.process_time()
            await asyncio.to_thread(publisher.join)
            took, cpu = time.monotonic() - start, time.process_time() - cpu
            ours.send(expected)
            latencies_ms = np.frombuffer(await asyncio.to_thread(ours.recv_bytes), np.float64)
        finally:
            await asyncio.to_thread(clients.join, _PATIENT_S)
    p50, p99 = np.percentile(latencies_ms, [50, 99]) if len(latencies_ms) else (np.nan, np.nan)
    return Figures(
        len(latencies_ms) / took,
        float(p50),
        float(p99),
        cpu / took,
        len(latencies_ms) == expected,
        int(_value(slow) - dropped),
    )


@asynccontextmanager
async def _served(connection: KafkaConnection, topics: Topics) -> AsyncIterator[int]:
    """Tail, hub and routes as in a gateway; callers show their tenant's name. Gives the port."""
    policy = NotifierPolicy(
        connections=20_000, connections_per_address=20_000, connects_per_s=100_000, send_timeout_s=2.0
    )
    hub, tail = Hub(policy), Tail(connection, Codec(PackagedSchemas()), topics)
    reads = frozenset({Scope.READ})
    app = knowing({f"t{n}": Principal(tenant=f"t{n}", subject=f"k{n}", scopes=reads) for n in range(_TENANTS)})
    add_routes(app, hub, Access())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, _listening(), backlog=4096).start()
    following = asyncio.create_task(tail.run(hub))
    try:
        async with asyncio.timeout(_PATIENT_S):
            while not hub.ready:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
        tail.stop()
        await following


def _listening() -> socket.socket:
    """With little room in the kernel for what a client does not read, or minutes would pass until it shows."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
    return listening


def _clients(port: int, load: Load, pipe: Connection) -> None:
    """A process: connect, and collect latencies until all have come that the other end says are to be expected."""
    _allow_sockets()

    def path(number: int) -> str:
        return f"/v1/stream?kind=result&ticket=t{number % _TENANTS}"

    with stalled_clients(port, path(0), load.stalled):
        listeners = Listeners(port, path, load.clients)
        pipe.send("connected")
        listeners.listen(lambda: pipe.recv() if pipe.poll() else None)
        pipe.send_bytes(listeners.latencies_ms.tobytes())
        listeners.close()


def _publish(load: Load, connection: KafkaConnection, topics: Topics, pipe: Connection) -> None:
    """A process: a slice of results at a time, at the load's rate."""
    codec = Codec(PackagedSchemas())
    with Publisher(connection, codec, topics) as publisher:
        publisher.send(
            topics.bulk, b"", b"the connection is there before anything is timed", lambda error, receipt: None
        )
        publisher.flush(_PATIENT_S)
        pipe.send("begins")
        start = time.monotonic()
        for number in range(load.slices):
            time.sleep(max(0.0, start + number / _SLICES_PER_S - time.monotonic()))
            for event in range(number * load.per_slice, (number + 1) * load.per_slice):
                value = codec.encode(_result(event))
                publisher.send(topics.detections, str(event).encode(), value, lambda error, receipt: None)


def _result(number: int) -> DetectionResult:
    """A result of one box for one of the tenants, which says when it was made."""
    box = Detection(label="person", class_id=0, score=0.9, x1=10.0, y1=20.0, x2=110.0, y2=220.0)
    return DetectionResult(
        id=f"r{number}",
        image_id=f"i{number}",
        uri=f"s3://bucket/{number}.jpg",
        tenant=f"t{number % _TENANTS}",
        detections=(box,),
        attributes={"t": str(time.monotonic_ns())},
    )


def _allow_sockets() -> None:
    """As many open files as this process may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _value(counter: object) -> float:
    return float(counter._value.get())  # type: ignore[attr-defined]


def _name(load: Load) -> str:
    return f"{load.clients} clients, {load.events_per_s} events/s"


def run(stage: Stage) -> Section:
    """A few loads, one after the other."""
    cells, measured = [], {}
    for load in LOADS:
        found = measure(load, stage.connection)
        measured[_name(load)] = found
        told = (f"{found.deliveries_per_s:,.0f}", f"{found.p50_ms:.0f}", f"{found.p99_ms:.0f}", f"{found.cores:.2f}")
        slow = f"{found.dropped} of {load.stalled}" if load.stalled else "none stalled"
        cells.append((f"{load.clients:,}", f"{load.events_per_s}", *told, "all" if found.complete else "NOT all", slow))
        stage.say(f"{_name(load)}: {told[0]} deliveries/s, p99 {told[2]} ms")
    most = measured[_name(LOADS[-1])]
    return Section(
        name="notifier",
        title="Deliveries a second of one process that serves websockets",
        how=(
            f"Results of one box on a real Kafka, clients of {_TENANTS} tenants, each of which hears a tenth; publisher and clients are "
            "processes of the same machine. Latency is from before a record is handed to "
            "the producer to its arrival at a client. Stalled clients never read, and are closed alone."
        ),
        columns=("clients", "events/s", "deliveries/s", "p50 ms", "p99 ms", "cores", "arrived", "stalled ones closed"),
        rows=cells,
        targets=[
            Target(what=f"p99 in ms, {_name(LOADS[-1])}", measured=most.p99_ms, wanted=120.0, at_least=False),
            Target(what=f"cores, {_name(LOADS[-1])}", measured=most.cores, wanted=1.0, at_least=False),
        ],
        figures={name: asdict(found) for name, found in measured.items()},
    )
