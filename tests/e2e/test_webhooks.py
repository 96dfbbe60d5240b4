"""A batch that is uploaded ends with its caller being called: gateway, worker and store are whole processes, on a real Kafka."""

import asyncio
import json
from pathlib import Path

import pytest

from producers.client_async import AsyncClient
from producers.client_forms import SubmitOptions
from schemas.connection import KafkaConnection
from schemas.topics import Topics
from sinks.webhook_signature import secret_of
from tests.support.images import encode, photograph
from tests.support.system import system
from tests.support.webhooks import MASTER, PATIENT_S, Receiver, receiving, verified

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


def settings_for(receiver: Receiver) -> dict[str, str]:
    return {
        "WEBHOOKS_SECRET": MASTER,
        "WEBHOOKS_INSECURE": "true",
        "WEBHOOKS_PORTS": str(receiver.port),
        "WEBHOOKS_EXTRA_NETWORKS": "127.0.0.0/8",
        "WEBHOOKS_POLL_S": "0.1",
    }


async def test_whoever_uploads_a_batch_is_called_once_with_its_results(
    connection: KafkaConnection, topics: Topics, tmp_path: Path
) -> None:
    pictures = [encode(photograph(seed), "JPEG") for seed in range(3)]
    async with receiving() as receiver:
        with system(connection, topics, tmp_path, settings_for(receiver)) as running:
            await asyncio.to_thread(running.start)
            async with AsyncClient(running.url) as client:
                batch = await client.submit_batch(pictures, SubmitOptions(callback=receiver.url))
                async with asyncio.timeout(PATIENT_S):
                    while not receiver.heard:  # noqa: ASYNC110 - the receiver says nothing of its own
                        await asyncio.sleep(0.05)
    (heard,) = receiver.heard
    assert verified(heard.headers, heard.body, secret_of(MASTER, "default"))
    said = json.loads(heard.body)["data"]
    assert (said["id"], said["status"], said["completed"], said["failed"]) == (batch.id, "completed", 3, 0)
    assert {image["id"] for image in said["results"]} == set(batch.accepted)
    assert all(image["detections"] for image in said["results"])
