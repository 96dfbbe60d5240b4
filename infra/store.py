"""The result store's parts, built from settings: the projection that fills it, and those that read it."""

import asyncio
import logging
import threading
import time
from dataclasses import replace

from infra.runtime import Run, threaded
from infra.server import run_alone
from infra.settings import Settings
from infra.telemetry import Health
from infra.wiring import open_codec
from schemas.errors import BusyError
from sinks.store import SqlResultStore
from sinks.store_deliveries import SqlDeliveryQueue
from sinks.store_policy import StorePolicy
from sinks.store_schema import check_migrated, migrate
from sinks.store_writes import StoreWriter
from streams.log_ends import KafkaLogEnds
from streams.membership import MembershipPolicy
from streams.projected import LogReader
from streams.projection import STAGE, Projection, ProjectionPolicy

log = logging.getLogger(__name__)

_FILE = "store.db"


async def run_store(settings: Settings, http: bool, stop: asyncio.Event) -> None:
    """One store process; with `http`, its health and metrics at `http.port`."""
    await run_alone(settings, lambda health: {STAGE: projection(settings, health)}, stop, http=http)


def projection(settings: Settings, health: Health, catch_up_s: float = 0.0) -> Run:
    """The part that fills the store, in a thread. `catch_up_s`: see `ProjectionPolicy`."""
    health.must_be_ready(STAGE, lambda: "has not started")

    def run(stop: threading.Event) -> None:
        writer = open_writer(settings)
        try:
            prepare(writer, settings.store, stop)
            if not stop.is_set():
                work = _projection(settings, writer, catch_up_s)
                health.must_be_ready(STAGE, work.complaint)
                work.run(stop)
        finally:
            writer.close()

    return threaded(run, STAGE)


def prepare(writer: StoreWriter, policy: StorePolicy, stop: threading.Event) -> None:
    """Bring the schema up to date, or check that it is; waits for the database until `stop` is set. Raises ConfigurationError."""
    while not stop.is_set():
        try:
            if not policy.migrate:
                check_migrated(writer.engine)
            elif migrate(writer.engine):
                log.info("store: the database's schema was brought up to date")
        except BusyError as error:
            log.warning("store: waits: %s", error)
            stop.wait(error.retry_after_s)
        else:
            return


def store_policy(settings: Settings) -> StorePolicy:
    """Section `store`, with a file in the state directory where no database was named."""
    file = settings.state_dir.expanduser().absolute() / _FILE
    return replace(settings.store, database_url=settings.store.database_url or f"sqlite:///{file}")


def open_writer(settings: Settings) -> StoreWriter:
    """The writing side; close it at the end."""
    return StoreWriter(store_policy(settings), epoch_us)


def open_store(settings: Settings) -> SqlResultStore:
    """The reading side, for a gateway; run its `watch` beside the server, and close it at the end."""
    return SqlResultStore(store_policy(settings), epoch_us)


def open_deliveries(settings: Settings) -> SqlDeliveryQueue:
    """Webhook deliveries; close it at the end."""
    return SqlDeliveryQueue(store_policy(settings))


def open_log_ends(settings: Settings) -> KafkaLogEnds:
    """Where the log ends, for `sinks.store_fresh`; close it at the end."""
    return KafkaLogEnds(settings.connection, settings.topics)


def epoch_us() -> int:
    """Now, in microseconds since the epoch."""
    return time.time_ns() // 1_000


def _projection(settings: Settings, writer: StoreWriter, catch_up_s: float) -> Projection:
    kafka, store = settings.kafka, settings.store
    policy = ProjectionPolicy(records=store.records, sweep_s=store.sweep_s, catch_up_s=catch_up_s)
    instance = f"{kafka.instance_id}.{STAGE}" if kafka.instance_id else None
    group, gather_ms = f"{kafka.group}.{STAGE}", round(store.linger_s * 1000)
    membership = MembershipPolicy(group=group, instance_id=instance, tells_end=True, gather_ms=gather_ms)
    return Projection(settings.connection, LogReader(open_codec(settings), settings.topics), writer, policy, membership)
