"""The edge as a gateway has it: built from settings, on a real Kafka."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
import pytest
from aiohttp import web

from infra.access import Role, acls
from infra.http.edge import Edge, open_edge
from infra.key_follower import KeyFollower
from infra.key_ledger import KeyLedger
from infra.keys import NewKey
from infra.server import build, serving
from infra.settings import Settings
from infra.telemetry import Health
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.control import AuditEvent
from schemas.errors import ConfigurationError
from schemas.identity import REQUEST_KEY, Principal, Scope
from schemas.topics import Topics
from tests.support.deliveries import eventually
from tests.support.edge import until
from tests.support.kafka import create_topics, delete_topics, read_topic
from tests.support.security import SecureKafka

pytestmark = pytest.mark.kafka


@asynccontextmanager
async def gateway(settings: Settings, publisher: Publisher) -> AsyncIterator[tuple[str, Edge]]:
    health = Health()
    edge = open_edge(settings, publisher, health)

    def routes(app: web.Application) -> None:
        async def submit(request: web.Request) -> web.Response:
            return web.json_response({"tenant": request[REQUEST_KEY].tenant}, status=202)

        app.router.add_post("/v1/images", submit)

    stop = asyncio.Event()
    async with serving(build(health, routes, edge.mount), settings.http, guarded=True) as url:
        part = None if edge.run is None else asyncio.ensure_future(edge.run(stop))
        try:
            yield url, edge
        finally:
            stop.set()
            if part is not None:
                await part


async def _submit(session: aiohttp.ClientSession, url: str, key: NewKey | None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key.text}"}
    async with session.post(f"{url}/v1/images", headers=headers) as answer:
        return answer.status


async def test_a_key_opens_every_gateway_until_it_is_revoked_and_the_audit_tells(
    connection: KafkaConnection, publisher: Publisher, codec: Codec
) -> None:
    settings = Settings().overriding(
        {
            "kafka.bootstrap": connection.bootstrap,
            "kafka.prefix": publisher.topics.prefix,
            "http.port": 0,
            "identity.mode": "required",
        }
    )
    ledger = KeyLedger(settings.connection, publisher)
    key = await asyncio.to_thread(ledger.create, "acme", ["submit"], "", datetime.now(UTC))
    async with (
        gateway(settings, publisher) as (one, edge),
        gateway(settings, publisher) as (other, _),
        aiohttp.ClientSession() as session,
    ):
        for url in (one, other):
            await _ready(session, url)
            assert await _submit(session, url, key) == 202
            assert await _submit(session, url, None) == 401
        caller = Principal(tenant="acme", subject=key.record.id, scopes=frozenset({Scope.SUBMIT}))
        assert edge.stands(caller)
        await asyncio.to_thread(ledger.revoke, key.record.id, datetime.now(UTC))
        await until(lambda: not edge.stands(caller), "the one knows", timeout_s=10)
        for url in (one, other):
            async with asyncio.timeout(10):
                while await _submit(session, url, key) != 401:
                    pass
    await asyncio.to_thread(publisher.flush, 30)
    told = read_topic(settings.connection, publisher.topics.audit, at_least=4)
    events = [codec.decode(message.value(), AuditEvent) for message in told]
    accepted = [event for event in events if event.status == 202]
    assert {(event.tenant, event.subject, event.action) for event in accepted} == {
        ("acme", key.record.id, "POST /v1/images")
    }
    assert {event.tenant for event in events if event.status == 401} == {""}


async def _ready(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(30):
        while True:
            async with session.get(f"{url}/readyz") as answer:
                if answer.status == 200:
                    return
                assert (await answer.json())["keys"] == "has not read the API keys"
            await asyncio.sleep(0.02)


async def test_open_mode_beyond_loopback_does_not_start(publisher: Publisher) -> None:
    settings = Settings().overriding({"http.host": "0.0.0.0", "http.public": True})
    with pytest.raises(ConfigurationError, match=r"identity\.mode"):
        open_edge(settings, publisher, Health())


def test_whoever_hands_out_keys_and_whoever_reads_them_need_no_more_than_their_acls(
    secure_kafka: SecureKafka, codec: Codec
) -> None:
    topics = Topics(prefix=f"e{threading.get_native_id()}.")
    create_topics(secure_kafka.scram("admin"), topics)
    try:
        secure_kafka.allow(acls(Role.KEEPER, "publisher", topics, topics.prefix))
        secure_kafka.allow(acls(Role.GATEWAY, "notifier", topics, topics.prefix))
        with Publisher(secure_kafka.scram("publisher"), codec, topics) as publisher:
            ledger = KeyLedger(secure_kafka.scram("publisher"), publisher, f"{topics.prefix}keys")
            made = ledger.create("acme", ["read"], "", datetime.now(UTC))
            ledger.revoke(made.record.id, datetime.now(UTC))
        reader = KeyFollower(secure_kafka.scram("notifier"), codec, topics.keys, f"{topics.prefix}keys")
        stop = threading.Event()
        thread = threading.Thread(target=reader.run, args=(stop,))
        thread.start()
        try:
            eventually(lambda: reader.complaint() is None, "the keys were read")
        finally:
            stop.set()
            thread.join(30)
        found = reader.ring.find(made.record.id)
        assert found is not None
        assert found.revoked_at is not None
    finally:
        delete_topics(secure_kafka.scram("admin"), [topic.name for topic in topics.catalogue()])
