"""One gateway: the way in and out over HTTP, put together. What it knows stands on the log and in the result store: there may be many."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from detectors.base import Image
from detectors.images import ImageLoader, ImageRequest
from infra import openapi
from infra.backlog import Backlog
from infra.forgetting import forget_through
from infra.http.edge import Edge, open_edge
from infra.page import routes as page
from infra.runtime import Run, first_of
from infra.server import AddRoutes
from infra.settings import Settings
from infra.store import open_deliveries, open_log_ends, open_store, store_policy
from infra.telemetry import Health
from infra.uploads import readable_uploads
from producers import gateway as submission
from producers.publisher import Publisher
from sinks import api, results, tickets, webhook_routes
from sinks.access import Access
from sinks.feeds import Feeds
from sinks.notifier import Hub
from sinks.results_outcomes import SubmittedOutcomes
from sinks.results_pictures import LoadPicture, ResultPictures
from sinks.results_reads import ResultReads
from sinks.results_status import ServiceStatus
from sinks.store import SqlResultStore
from sinks.store_deliveries import SqlDeliveryQueue
from sinks.tickets import Tickets
from sinks.waits import Waits
from sinks.webhooks import Webhooks
from streams.log_ends import KafkaLogEnds
from streams.tail import Tail


@dataclass(frozen=True, slots=True)
class Gateway:
    """`parts`: what runs, in the order in which it ends; `routes`: what is served, in the order in which it is mounted."""

    parts: Mapping[str, Run]
    routes: tuple[AddRoutes, ...]


@asynccontextmanager
async def open_gateway(settings: Settings, publisher: Publisher, health: Health) -> AsyncIterator[Gateway]:
    """A gateway, closed at the end. Ready once it has read the API keys and the recent past, and the store answers.

    Raises ConfigurationError where it would let strangers in, or where uploads, scanner or store cannot be.
    """
    async with AsyncExitStack() as opened:
        known = _Known.open(settings, opened)
        load = await opened.enter_async_context(_pictures(settings))
        backlog = Backlog(known.store, known.ends, settings.topics)
        edge = open_edge(settings, publisher, health, backlog=backlog, redeem=known.tickets.redeem)
        health.must_be_ready("store", known.store.complaint)
        health.must_be_ready("notifier", lambda: None if known.hub.ready else "is reading its history")
        parts = {"backlog": backlog.run, "tail": known.follow(settings, publisher), "store": known.store.watch}
        if edge.run is not None:
            parts["keys"] = edge.run
        if settings.webhooks.secret is not None:
            parts["webhooks"] = Webhooks(settings.webhooks, known.queue, known.store).run
        yield Gateway(parts, _routes(settings, publisher, known, load, edge))


@dataclass(frozen=True, slots=True)
class _Known:
    """What a gateway knows of the past: the store behind the log, and the log's own end."""

    store: SqlResultStore
    ends: KafkaLogEnds
    queue: SqlDeliveryQueue
    tickets: Tickets
    reads: ResultReads
    waits: Waits
    hub: Hub

    @classmethod
    def open(cls, settings: Settings, opened: AsyncExitStack) -> "_Known":
        store, ends, queue = open_store(settings), open_log_ends(settings), open_deliveries(settings)
        asked = Tickets(store_policy(settings))
        for part in (store, ends, queue, asked):
            opened.callback(part.close)
        waits = Waits(settings.results.waits)
        reads = ResultReads(store, ends, waits, settings.store.catch_up_s)
        return cls(store, ends, queue, asked, reads, waits, Hub(settings.notifier))

    def follow(self, settings: Settings, publisher: Publisher) -> Run:
        """Reads outcomes off the log for those who wait and those who listen."""
        group = f"{settings.kafka.group}.gateway"
        tail = Tail(settings.connection, publisher.codec, settings.topics, settings.tail, group)

        async def run(stop: asyncio.Event) -> None:
            work = asyncio.ensure_future(tail.run(Feeds(self.waits, self.hub)))
            await first_of(work, stop)
            tail.stop()
            await work

        return run


def _routes(
    settings: Settings, publisher: Publisher, known: _Known, load: LoadPicture, edge: Edge
) -> tuple[AddRoutes, ...]:
    taking = submission.Gateway(
        publisher, settings.gateway, settings.uploads, known=known.store, outcomes=SubmittedOutcomes(known.reads)
    )
    taking.desk.callbacks = settings.webhooks.schemes if settings.webhooks.secret else frozenset()
    giving = results.ResultParts(
        reads=known.reads,
        pictures=ResultPictures(load, settings.results),
        status=ServiceStatus(known.store, known.ends, settings.topics, settings.results.status_s),
        forget=forget_through(publisher),
        policy=settings.results,
    )
    access = Access(edge.stands)
    return (
        lambda app: submission.add_routes(app, taking),
        lambda app: results.add_routes(app, giving),
        lambda app: api.add_routes(app, known.hub, access),
        lambda app: tickets.add_routes(app, known.tickets),
        lambda app: webhook_routes.add_routes(app, known.queue),
        openapi.add_routes,
        page.add_routes,
        edge.mount,
    )


@asynccontextmanager
async def _pictures(settings: Settings) -> AsyncIterator[LoadPicture]:
    """The workers' own loader, held to the same rules, for pictures that are drawn on."""
    side = settings.results.picture_side
    policy = replace(readable_uploads(settings), decoders=1, decode_on="host")
    async with ImageLoader(policy, (side, side)) as images:

        async def load(uri: str, sha256: str | None) -> Image:
            (found,) = await images.load([ImageRequest(uri, sha256)])
            if isinstance(found, Exception):
                raise found
            return found

        yield load
