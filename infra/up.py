"""Everything in one process: a broker if wanted, worker, Parquet sink, result store and gateway."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from detectors.curve import Paced
from infra import services
from infra.broker.embedded import EmbeddedKafka
from infra.broker.local import LocalKafka
from infra.connections import check_connection
from infra.demo import fresh_lake, on_embedded
from infra.gateway import open_gateway
from infra.judging import JUDGE, judging
from infra.runtime import run_together
from infra.server import build, serving
from infra.settings import Settings
from infra.store import projection
from infra.telemetry import Health
from infra.topics import TopicAdmin
from infra.wiring import open_publisher

# An embedded broker ends with the process, and with it what the sink has not read.
_CATCH_UP_S = 10.0


@contextmanager
def kafka_for(settings: Settings, kafka: str) -> Iterator[Settings]:
    """The settings with the brokers that are wanted, and every topic of the catalogue there.

    `kafka`: `embedded`, `local` (left running at the end: its data is meant to stay), `settings`, or addresses.
    """
    if kafka == "embedded":
        with EmbeddedKafka() as broker:
            broker.create(topic.name for topic in settings.topics.catalogue())
            folder = fresh_lake(settings, "up")
            kept = {"parquet.directory": folder / "lake", "store.database_url": f"sqlite:///{folder / 'store.db'}"}
            yield on_embedded(settings.defaulting(kept), broker.bootstrap)
        return
    if kafka == "local":
        local = LocalKafka(settings.state_dir / "broker", cache=settings.general.cache_dir)
        local.start()
        kafka = local.bootstrap
    if kafka != "settings":
        settings = settings.overriding({"kafka.bootstrap": kafka})
    check_connection(settings.connection)
    TopicAdmin(settings.connection).create(
        settings.topics.catalogue(settings.kafka.partitions), settings.kafka.replication
    )
    yield settings


async def run_everything(
    settings: Settings, detector: Paced | None, tell: Callable[[str], object], stop: asyncio.Event
) -> None:
    """Run until `stop`; `tell` gets lines for whoever started it."""
    health = Health()
    with open_publisher(settings) as publisher:
        async with open_gateway(settings, publisher, health) as gateway:
            # In the order in which they end: what the worker still writes, the sinks and the gateway still carry on.
            parts = services.working_parts(settings, publisher, detector, health)
            if settings.models.default:
                parts[JUDGE] = judging(settings, health)
            parts |= {
                "parquet": services.parquet(settings, publisher, health, _CATCH_UP_S),
                "projection": projection(settings, health, _CATCH_UP_S),
                **gateway.parts,
            }
            async with serving(build(health, *gateway.routes), settings.http, guarded=True) as url:
                bootstrap = settings.kafka.bootstrap
                tell(f"Kafka at {bootstrap}, HTTP at {url}, Parquet in {settings.parquet.directory.absolute()}")
                tell(f"to look: {url}/ in a browser, or sightstream detect --server {url} FILE...")
                tell(f"to publish: sightstream --set kafka.bootstrap={bootstrap} publish --wait DIRECTORY")
                await run_together(parts, stop, health.stopping)
