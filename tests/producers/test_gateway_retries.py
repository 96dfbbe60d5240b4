"""`Idempotency-Key`: the same request twice is one, whoever answers it and whatever died in between; another is told so."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from producers import idempotency
from producers.idempotency import Past, derive_id
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.control import Batch
from schemas.errors import BusyError, Reason
from schemas.records import ImageRef
from schemas.topics import Topics
from tests.support.gateway import FORM, TENANT, Caller, form, gateway_at
from tests.support.images import encode, photograph
from tests.support.kafka import read_topic

pytestmark = pytest.mark.kafka

JPEG = encode(photograph(1), "JPEG")
PNG = encode(photograph(2), "PNG")


@dataclass
class Gone:
    reason: str


@dataclass
class ClosedBatch:
    images: int | None


@dataclass
class Log:
    """What a store would know: as the log has it, since that is where a store reads."""

    connection: KafkaConnection
    topics: Topics
    codec: Codec
    gone: dict[str, str] = field(default_factory=dict)
    down: bool = False

    def images(self) -> list[ImageRef]:
        found = read_topic(self.connection, self.topics.online)
        return [self.codec.decode(message.value(), ImageRef) for message in found]

    def batches(self) -> list[Batch]:
        found = read_topic(self.connection, self.topics.batches)
        return [self.codec.decode(message.value(), Batch) for message in found]

    async def images_by_id(self, tenant: str, image_ids: Sequence[str]) -> Mapping[str, Past]:
        if self.down:
            raise BusyError(Reason.STORAGE_UNAVAILABLE, "down")
        known: dict[str, Past] = {ref.id: ref for ref in await asyncio.to_thread(self.images) if ref.tenant == tenant}
        known |= {image_id: Gone(reason) for image_id, reason in self.gone.items()}
        return {image_id: known[image_id] for image_id in image_ids if image_id in known}

    async def batch(self, tenant: str, batch_id: str) -> ClosedBatch | None:
        if self.down:
            raise BusyError(Reason.STORAGE_UNAVAILABLE, "down")
        found = [
            batch for batch in await asyncio.to_thread(self.batches) if (batch.tenant, batch.id) == (tenant, batch_id)
        ]
        return ClosedBatch(found[-1].images) if found else None


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the log anew for each question, as `Log` does, takes longer than a store."""
    monkeypatch.setattr(idempotency, "_LOOK_S", 60.0)


@pytest.fixture
def past(connection: KafkaConnection, topics: Topics, codec: Codec) -> Log:
    return Log(connection, topics, codec)


async def test_one_image_by_two_gateways(publisher: Publisher, past: Log, tmp_path: Path) -> None:
    async with gateway_at(publisher, tmp_path, known=past) as first:
        answers = [await first.send(("confidence", "0.4"), JPEG, Idempotency_Key="k") for _ in range(2)]
    async with gateway_at(publisher, tmp_path, known=past) as second:
        answers.append(await second.send(("confidence", "0.4"), JPEG, Idempotency_Key="k"))
        others = [
            await second.send(("confidence", "0.4"), PNG, Idempotency_Key="k"),
            await second.send(("confidence", "0.5"), JPEG, Idempotency_Key="k"),
            await second.send(("confidence", "0.4"), JPEG, JPEG, Idempotency_Key="k"),
        ]
        foreign = await second.send(("confidence", "0.4"), JPEG, Idempotency_Key="k", **{TENANT: "acme"})
    assert [answer.status for answer in answers] == [202] * 3
    assert {answer.body["id"] for answer in answers} == {derive_id("default", "k", "0")}
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true", "true"]
    assert [(other.status, other.code) for other in others] == [(422, "idempotency_mismatch")] * 3
    assert (foreign.status, foreign.body["id"]) == (202, derive_id("acme", "k", "0"))
    assert [ref.id for ref in past.images() if ref.tenant == "default"] == [derive_id("default", "k", "0")]


async def test_a_retry_that_the_store_does_not_know_yet_writes_the_same_again(
    publisher: Publisher, past: Log, tmp_path: Path
) -> None:
    past.down = True
    ids = []
    for _ in range(2):  # two gateways, and neither can ask
        async with gateway_at(publisher, tmp_path, known=past) as caller:
            ids.append((await caller.send(JPEG, Idempotency_Key="k")).body["id"])
    first, second = past.images()
    assert {first.id, second.id, *ids} == {derive_id("default", "k", "0")}
    assert (first.uri, first.sha256) == (second.uri, second.sha256)


async def test_a_batch_that_lost_its_connection_is_completed_by_the_retry(
    publisher: Publisher, past: Log, tmp_path: Path
) -> None:
    parts = [encode(photograph(seed), "JPEG") for seed in range(12)]
    async with gateway_at(publisher, tmp_path, known=past) as caller:
        await begin_and_vanish(caller, past, form(parts), 7, {"Idempotency-Key": "b"})
        await settled(caller)
    arrived = past.images()
    assert 6 <= len(arrived) <= 7
    assert [batch.images for batch in past.batches()] == [None], "it is still `receiving`: the retry brings the rest"
    async with gateway_at(publisher, tmp_path, known=past) as caller:
        answer = await caller.send(*parts, Idempotency_Key="b")
        again = await caller.send(*parts, Idempotency_Key="b")
    assert (answer.status, answer.body["accepted"]) == (202, 12)
    assert answer.headers.get("Idempotency-Replayed") is None
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.body == answer.body
    assert [image["id"] for image in answer.body["images"]] == [derive_id("default", "b", str(at)) for at in range(12)]
    found = [ref.id for ref in past.images()]
    assert sorted(found) == sorted(image["id"] for image in answer.body["images"]), "each was written once"
    assert [batch.images for batch in past.batches()] == [None, None, 12]
    assert {batch.id for batch in past.batches()} == {answer.body["batch_id"]}


async def test_without_a_key_what_arrived_is_a_closed_batch(publisher: Publisher, past: Log, tmp_path: Path) -> None:
    parts = [encode(photograph(seed), "JPEG") for seed in range(12)]
    async with gateway_at(publisher, tmp_path, known=past) as caller:
        await begin_and_vanish(caller, past, form(parts), 5, {})
        await settled(caller)
    opened, closed = past.batches()
    assert (opened.images, closed.images) == (None, len(past.images()))
    assert closed.attributes == {"interrupted": "connection_lost"}
    assert {ref.batch_id for ref in past.images()} == {closed.id}


async def begin_and_vanish(caller: Caller, past: Log, body: bytes, files: int, headers: Mapping[str, str]) -> None:
    """Send so many files of a batch, wait until the gateway has come to the last of them, and cut the connection."""
    host, port = caller.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = {"Host": host, "Content-Type": FORM, "Content-Length": str(len(body)), **headers}
    head = "POST /v1/images HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    starts = [at for at in range(len(body)) if body.startswith(b"--b0undary", at)]
    writer.write(head.encode() + body[: starts[files] + 200])
    await writer.drain()
    async with asyncio.timeout(20):
        while len(await asyncio.to_thread(past.images)) < files - 1:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)
    writer.transport.abort()
    del reader


async def settled(caller: Caller) -> None:
    """The gateway has done all that it does behind its callers' backs."""
    async with asyncio.timeout(20):
        while caller.gateway.desk.in_hand or caller.gateway.desk.tasks:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)


async def test_what_is_gone_is_gone(publisher: Publisher, past: Log, tmp_path: Path) -> None:
    past.gone = {derive_id("default", "d", "0"): "deleted", derive_id("default", "e", "0"): "expired"}
    async with gateway_at(publisher, tmp_path, known=past) as caller:
        deleted, expired = [await caller.send(JPEG, Idempotency_Key=key) for key in "de"]
    assert [(answer.status, answer.code) for answer in (deleted, expired)] == [(410, "deleted"), (410, "expired")]


async def test_two_at_once_are_one_and_a_conflict(publisher: Publisher, past: Log, tmp_path: Path) -> None:
    async with gateway_at(publisher, tmp_path, known=past) as caller:
        answers = await asyncio.gather(*(caller.send(JPEG, Idempotency_Key="k") for _ in range(4)))
    assert {answer.status for answer in answers} <= {202, 409}
    assert any(answer.status == 202 for answer in answers)
    for answer in answers:
        if answer.status == 409:
            assert answer.code == "idempotency_in_flight"
            assert answer.headers["Retry-After"] == "1"
    assert len(past.images()) == 1


@pytest.mark.parametrize("key", ["", "k" * 256, "a b", "käse"])
async def test_keys_that_are_none(publisher: Publisher, tmp_path: Path, key: str) -> None:
    async with gateway_at(publisher, tmp_path) as caller:
        answer = await caller.send(JPEG, Idempotency_Key=key)
    assert (answer.status, answer.code) == (400, "invalid_header")
