"""`kill -9` of gateway, store, worker and broker in turn during uploads: whoever got a 202 gets an outcome, and nobody gets two."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from infra.broker.local import LocalKafka
from producers.client_async import AsyncClient
from producers.client_http import ClientPolicy
from producers.client_images import Image, ImageStatus
from producers.client_streams import Outcome
from schemas.connection import KafkaConnection
from schemas.records import ImageRef
from schemas.topics import Topics
from tests.support.images import encode, photograph
from tests.support.kafka import read_topic
from tests.support.load import own_topics
from tests.support.pipeline import CODEC, Outcomes
from tests.support.system import System, system

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(900)]

COUNT = 2000
BAD_SHARE = 0.02
PATIENT_S = 150.0
PATIENT = ClientPolicy(backoff_s=0.05, backoff_cap_s=1.0, retry_for_s=PATIENT_S, concurrency=16)
# What is killed once so many uploads got their 202; in the order in which they are the most in each other's way.
KILLS = {"gateway": 300, "store": 600, "worker": 900, "broker": 1200, "gateway again": 1600}


async def test_every_upload_that_got_a_202_ends_in_one_outcome(
    private_kafka: LocalKafka, tmp_path: Path, chance: Random
) -> None:
    connection, topics = own_topics(private_kafka)
    with ExitStack() as stack:
        running = stack.enter_context(system(connection, topics, tmp_path, {"BATCHING_MAX_BATCH": "16"}))
        running.start()
        stack.enter_context(running.supervised())
        async with AsyncClient(running.url, policy=PATIENT) as client:
            uploads = Uploads(client, chance)
            told: Counter[str] = Counter()
            listening = asyncio.create_task(listen(client, told))
            uploading = asyncio.create_task(uploads.all())
            for what, after in KILLS.items():
                await either(uploads.reached(after), uploading)
                await asyncio.to_thread(disturb, what.split()[0], running, private_kafka)
            await uploading
            images = [image async for image in client.outcomes(uploads.ids, timeout_s=PATIENT_S)]
            check(images, uploads)
            listed = [image.id async for image in client.images()]
            assert Counter(listed) == Counter(uploads.ids), "the list has each once, and no other"
            listening.cancel()
            (ended,) = await asyncio.gather(listening, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError), "the stream broke, and did not come back"
            assert set(told) <= set(uploads.ids)
            assert max(told.values()) == 1, "subscribers were told of an outcome twice"
    check_log(connection, topics, images)


async def either(reached: Coroutine[None, None, None], uploading: "asyncio.Task[None]") -> None:
    """Until so many are uploaded; what ends the uploads ends the test."""
    waiting = asyncio.create_task(reached)
    await asyncio.wait({waiting, uploading}, return_when=asyncio.FIRST_COMPLETED)
    if uploading.done():
        uploading.result()
    await waiting


def disturb(what: str, running: System, kafka: LocalKafka) -> None:
    """Kill it in the middle of its work."""
    if what == "broker":
        kafka.kill()
        kafka.restart(1)
        return
    running.parts[what].kill()  # the supervisor starts it again


async def listen(client: AsyncClient, told: Counter[str]) -> None:
    """Count what subscribers are told; what a restart of the gateway kept from them they would read elsewhere."""
    async for item in client.stream():
        if isinstance(item, Outcome):
            told[item.image_id] += 1


def check(images: Sequence[Image], uploads: "Uploads") -> None:
    """Every upload has its outcome: a result of its own, or the failure that its picture deserves."""
    assert Counter(image.id for image in images) == Counter(uploads.ids)
    assert len(set(uploads.ids)) == COUNT
    failed = {image.id: image.failure.code for image in images if image.failure is not None}
    assert failed == dict.fromkeys(uploads.bad_ids, "image_corrupt")
    results = {image.result_id for image in images if image.status is ImageStatus.COMPLETED}
    assert len(results) == COUNT - len(failed)


def check_log(connection: KafkaConnection, topics: Topics, images: Sequence[Image]) -> None:
    """The log says the same: no image that nobody was told of, and for each one outcome, of which there may be copies."""
    submitted = {CODEC.decode(message.value(), ImageRef).id for message in read_topic(connection, topics.online)}
    assert submitted == {image.id for image in images}
    outcomes = Outcomes.read(connection, topics)
    results = {(result.image_id, result.id) for result in outcomes.results}
    assert results == {(image.id, image.result_id) for image in images if image.status is ImageStatus.COMPLETED}
    assert {letter.image_id for letter in outcomes.letters} == {
        image.id for image in images if image.failure is not None
    }


class Uploads:
    """Pictures, each another one; a few of them are garbled within, which only decoding finds out."""

    def __init__(self, client: AsyncClient, chance: Random) -> None:
        self._client = client
        self._photos = [encode(photograph(seed, 64, 48), "JPEG") for seed in range(4)]
        self._garbled = encode(photograph(9, 64, 48), "PNG")
        self._bad = {number for number in range(COUNT) if chance.random() < BAD_SHARE}
        self._numbers = iter(range(COUNT))
        self._progress = asyncio.Condition()
        self.ids: list[str] = []
        self.bad_ids: set[str] = set()

    async def all(self) -> None:
        """Upload them all, a few at a time, each until it has got its 202."""
        async with asyncio.TaskGroup() as group:
            for _ in range(PATIENT.concurrency):
                group.create_task(self._one_after_the_other())

    async def reached(self, count: int) -> None:
        """Wait until so many got their 202."""
        async with self._progress:
            await asyncio.wait_for(self._progress.wait_for(lambda: len(self.ids) >= count), PATIENT_S)

    async def _one_after_the_other(self) -> None:
        for number in self._numbers:
            image_id = await self._client.submit(self._picture(number), idempotency_key=f"upload-{number}")
            if number in self._bad:
                self.bad_ids.add(image_id)
            self.ids.append(image_id)
            async with self._progress:
                self._progress.notify_all()

    def _picture(self, number: int) -> bytes:
        if number in self._bad:
            # A colour type that no PNG has; its bytes are another picture's each time.
            middle = len(self._garbled) // 2
            rest = self._garbled[26:middle] + number.to_bytes(8, "big") + self._garbled[middle + 8 :]
            return self._garbled[:25] + b"\x05" + rest
        photo = self._photos[number % len(self._photos)]
        comment = f"picture {number}".encode()
        return photo[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + photo[2:]
