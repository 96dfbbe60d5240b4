"""`sightstream notifier` as a process of its own."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.records import DeadLetter, DetectionResult
from schemas.topics import Topics
from tests.support.subscribers import Client

PATIENT_S = 60.0


@asynccontextmanager
async def notifier(
    connection: KafkaConnection, topics: Topics
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A notifier process that is ready, and its base URL."""
    settings = {"KAFKA_BOOTSTRAP": connection.bootstrap, "KAFKA_PREFIX": topics.prefix, "LOG_FORMAT": "json"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "infra.cli", "notifier", "--port", "0"),
        env={**os.environ, **{f"SIGHTSTREAM_{name}": value for name, value in settings.items()}},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENT_S):
            lines = b""
            while not (port := re.search(rb'"port": ?(\d+)', lines)):
                line = await process.stderr.readline()
                assert line, f"it ended: {lines.decode()}"
                lines += line
        drain = asyncio.create_task(process.stderr.read())
        url = f"http://127.0.0.1:{int(port[1])}"
        async with asyncio.timeout(PATIENT_S), aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0.05)
        yield process, url
        if process.returncode is None:
            process.kill()
        await drain
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.kafka
@pytest.mark.kill
async def test_it_tells_results_and_failures_and_drains_on_sigterm(
    connection: KafkaConnection, topics: Topics, codec: Codec, publisher: Publisher
) -> None:
    async with (
        notifier(connection, topics) as (process, url),
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/v1/stream?batch=b") as socket,
    ):
        client = Client(socket)
        await client.hear_type("subscribed")
        result = DetectionResult(id="r1", image_id="i1", uri="file:///i1.jpg", batch_id="b")
        letter = DeadLetter(code="image_corrupt", message="no JPEG", stage="fetch", image_id="i2", batch_id="b")
        for topic, record in ((topics.detections, result), (topics.dead_letters, letter)):
            publisher.send(topic, key=b"k", value=codec.encode(record), on_delivery=lambda error, receipt: None)
        heard = await client.hear(lambda messages: {"result", "failed"} <= {m["type"] for m in messages})
        assert {message["image_id"] for message in heard if "image_id" in message} == {"i1", "i2"}
        process.send_signal(signal.SIGTERM)
        assert await client.hear_close() == 1012
        async with asyncio.timeout(PATIENT_S):
            assert await process.wait() == 0
    assert client.heard[-1]["type"] == "reconnect"
