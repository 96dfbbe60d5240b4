"""The gateway's client against a gateway in memory whose every answer is held against the OpenAPI document."""

import asyncio
import inspect
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from producers.client import Client
from producers.client_async import AsyncClient
from producers.client_batches import BatchStatus
from producers.client_forms import Picture, SubmitOptions
from producers.client_http import ClientPolicy, UnreachableError
from producers.client_images import Image, ImageStatus
from producers.client_queries import AnnotatedLook, ImageQuery
from producers.client_streams import Gap, Outcome
from producers.client_waits import UnfinishedError
from schemas.errors import ConfigurationError, RejectedError, SightstreamError
from schemas.problems import ProblemError
from schemas.records import Detection, DetectParameters, Lane
from tests.support.fake_gateway import FakeGateway
from tests.support.images import encode, photograph

QUICK = ClientPolicy(backoff_s=0.001, retry_for_s=5.0)
PATIENT_S = 20.0


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    """A gateway that detects at once."""
    async with FakeGateway().serving() as served:
        yield served


@pytest.fixture
async def client(gateway: FakeGateway) -> AsyncIterator[AsyncClient]:
    """A client that does not wait long between tries."""
    async with AsyncClient(gateway.url, token="k3y", policy=QUICK) as connected:
        yield connected


CONTENT = encode(photograph(1, 64, 48), "JPEG")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture in a file."""
    path = tmp_path / "shelf.jpg"
    path.write_bytes(CONTENT)
    return path


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENT_S):
        while not condition():  # noqa: ASYNC110 - what is looked at is no event
            await asyncio.sleep(0.005)


async def test_a_picture_is_submitted_and_its_boxes_come_back(
    gateway: FakeGateway, client: AsyncClient, photo: Path
) -> None:
    image = await client.detect(photo)
    assert (image.status, image.finished, image.width, image.height) == (ImageStatus.COMPLETED, True, 64, 48)
    assert image.detections == (Detection(label="qr", class_id=0, score=0.9, x1=1.0, y1=2.0, x2=30.5, y2=40.5),)
    assert image.timings is not None
    assert image.timings["total_ms"] == 250.0
    (seen,) = gateway.seen
    assert seen.files == [CONTENT]
    assert seen.headers["Authorization"] == "Bearer k3y"
    assert seen.headers["Content-Length"], "a file's length is known before it is sent"
    assert await client.image(image.id) == image


async def test_options_travel_as_form_fields_and_as_json(
    gateway: FakeGateway, client: AsyncClient, photo: Path
) -> None:
    options = SubmitOptions(
        key="camera-7",
        model="codes",
        parameters=DetectParameters(confidence=0.4, iou=0.5, max_detections=9, classes=(0, 2)),
        lane=Lane.BULK,
        attributes={"shelf": "12"},
        callback="https://example.org/hook",
    )
    await client.submit(photo, options)
    await client.submit("https://example.org/a.jpg", options)
    form, told = gateway.seen[0].fields, gateway.seen[1].fields
    assert json.loads(form.pop("attributes")) == {"shelf": "12"}
    assert form == {
        "key": "camera-7",
        "model": "codes",
        "confidence": "0.4",
        "iou": "0.5",
        "max_detections": "9",
        "classes": "0,2",
        "lane": "bulk",
        "callback": "https://example.org/hook",
    }
    assert told == {
        "uri": "https://example.org/a.jpg",
        "key": "camera-7",
        "model": "codes",
        "parameters": {"confidence": 0.4, "iou": 0.5, "max_detections": 9, "classes": [0, 2]},
        "lane": "bulk",
        "attributes": {"shelf": "12"},
        "callback": "https://example.org/hook",
    }


@pytest.mark.parametrize(
    "hitch",
    [
        ConnectionResetError,
        ProblemError(503, "overloaded", "too much is waiting", 0),
        ProblemError(429, "rate_limited", "too many", 0),
        ProblemError(409, "idempotency_in_flight", "being worked on", 0),
        ProblemError(408, "request_timeout", "too slow"),
    ],
    ids=lambda hitch: getattr(hitch, "code", "dropped"),
)
async def test_a_submission_is_tried_again_with_the_same_key(
    gateway: FakeGateway, client: AsyncClient, photo: Path, hitch: ProblemError | type[ConnectionError]
) -> None:
    gateway.hitches += [hitch, hitch]
    await client.submit(photo)
    keys = {one.headers["Idempotency-Key"] for one in gateway.seen}
    assert (len(gateway.seen), len(keys), len(gateway.images)) == (3, 1, 1)


async def test_the_callers_own_key_reaches_the_same_image_again(
    gateway: FakeGateway, client: AsyncClient, photo: Path
) -> None:
    first = await client.submit(photo, idempotency_key="order-1")
    assert await client.submit(photo, idempotency_key="order-1") == first
    assert await client.submit(photo) != first


async def test_what_is_refused_is_said_at_once(gateway: FakeGateway, client: AsyncClient) -> None:
    with pytest.raises(ProblemError) as refused:
        await client.submit(b"PK\x03\x04 no picture")
    assert (refused.value.status, refused.value.code) == (415, "image_type_unsupported")
    with pytest.raises(ProblemError) as unknown:
        await client.image("there-is-none")
    assert unknown.value.code == "not_found"
    assert len(gateway.seen) == 2


async def test_patience_ends(gateway: FakeGateway, photo: Path) -> None:
    gateway.hitches += [ProblemError(503, "overloaded", "too much is waiting", 3600)]
    async with AsyncClient(gateway.url, policy=QUICK) as client:
        with pytest.raises(ProblemError, match="too much") as busy:
            await client.submit(photo)
    assert busy.value.retry_after_s == 3600, "who gives up is told when to come again"
    assert len(gateway.seen) == 1, "an hour is more than there was: waiting in vain is waiting, too"


async def test_nobody_there(photo: Path) -> None:
    async with AsyncClient("http://127.0.0.1:9", policy=ClientPolicy(backoff_s=0.01, retry_for_s=0.05)) as client:
        with pytest.raises(UnreachableError, match="does not answer"):
            await client.submit(photo)
        with pytest.raises(UnreachableError):
            await anext(client.stream())


async def test_files_that_cannot_be_read(
    gateway: FakeGateway, client: AsyncClient, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RejectedError, match=r"missing\.jpg cannot be read"):
        await client.submit(photo.with_name("missing.jpg"))
    assert not gateway.seen
    whole = os.stat_result((0o100644, 0, 0, 1, 0, 0, len(CONTENT) + 1, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda *_, **__: whole)
    with pytest.raises(RejectedError, match="become shorter"):
        await client.submit(photo)
    assert not gateway.images


async def test_a_server_that_is_none_of_ours(gateway: FakeGateway, photo: Path) -> None:
    with pytest.raises(ConfigurationError, match="http"):
        AsyncClient("ftp://example.org")
    gateway.images["odd"] = {"hello": "world", "completed_at": "x"}
    async with AsyncClient(gateway.url, policy=QUICK) as client:
        with pytest.raises(ConfigurationError, match="not one of a Sightstream gateway"):
            await client.image("odd")
    assert gateway.violations.pop(), "the judge saw it, too"


async def test_an_image_that_failed_is_no_error(gateway: FakeGateway, client: AsyncClient, photo: Path) -> None:
    gateway.outcome = "failed"
    image = await client.detect(photo)
    assert image.status is ImageStatus.FAILED
    assert image.failure is not None
    assert image.failure.code == "image_corrupt"
    with pytest.raises(ProblemError) as nothing:
        await client.annotated(image.id)
    assert nothing.value.code == "no_result"


async def test_waiting_goes_on_after_the_held_answer(gateway: FakeGateway, client: AsyncClient, photo: Path) -> None:
    gateway.outcome = None
    with pytest.raises(UnfinishedError) as unfinished:
        await client.detect(photo, timeout_s=0.05)
    (image_id,) = unfinished.value.ids
    waiting = asyncio.create_task(client.wait(image_id, timeout_s=PATIENT_S))
    await eventually(lambda: "wait" in gateway.seen[-1].query)
    await gateway.finish(image_id)
    assert (await waiting).status is ImageStatus.COMPLETED


async def test_many_at_once_each_with_its_own_end(gateway: FakeGateway, client: AsyncClient, photo: Path) -> None:
    pictures: list[Picture] = [photo, b"no picture", photo.with_name("missing.jpg"), str(photo)]
    found = [(picture, outcome) async for picture, outcome in client.detect_many(pictures)]
    assert {str(picture) for picture, _ in found} == {str(picture) for picture in pictures}
    kinds = {type(outcome) for _, outcome in found}
    assert kinds == {Image, ProblemError, RejectedError}
    assert all(isinstance(outcome, Image | SightstreamError) for _, outcome in found)


async def test_a_version_of_a_model_can_be_asked_for(gateway: FakeGateway, client: AsyncClient) -> None:
    batch = await client.submit_batch(["https://example.org/1.jpg"])
    (image_id,) = batch.accepted
    gateway.seen.clear()
    await client.image(image_id, model="codes@2")
    assert [image.id async for image in client.batch_images(batch.id, model="codes@2")] == [image_id]
    await client.annotated(image_id, AnnotatedLook(model="codes@2"))
    assert [seen.query["model"] for seen in gateway.seen] == ["codes@2"] * 3


async def test_a_batch_says_of_each_picture_what_became_of_it(
    gateway: FakeGateway, client: AsyncClient, photo: Path
) -> None:
    batch = await client.submit_batch([photo, b"no picture", photo])
    assert [type(entry) for entry in batch.entries] == [str, ProblemError, str]
    done = await client.wait_batch(batch.id)
    assert (done.status, done.images, done.completed, done.failed) == (BatchStatus.COMPLETED, 2, 2, 0)
    assert await client.batch(batch.id) == done
    assert [image.id async for image in client.batch_images(batch.id)] == list(batch.accepted)
    uris = await client.submit_batch(["https://example.org/1.jpg"])
    assert len(uris.accepted) == 1
    with pytest.raises(ValueError, match="not of both"):
        await client.submit_batch([photo, "https://example.org/1.jpg"])


async def test_a_batch_that_takes_too_long(gateway: FakeGateway, client: AsyncClient, photo: Path) -> None:
    gateway.outcome = None
    batch = await client.submit_batch([photo, photo])
    with pytest.raises(UnfinishedError):
        await client.wait_batch(batch.id, timeout_s=0.05)
    with pytest.raises(UnfinishedError) as unfinished:
        await anext(client.outcomes(batch, timeout_s=0.05))
    assert set(unfinished.value.ids) == set(batch.accepted)


async def test_outcomes_are_told_by_websocket_across_a_restart(
    gateway: FakeGateway, client: AsyncClient, photo: Path
) -> None:
    gateway.outcome = None
    early = await client.submit(photo)
    await gateway.finish(early)  # before anybody listens: only asking can tell of it
    others = [await client.submit(photo) for _ in range(4)]
    found: list[Image] = []

    async def collect() -> None:
        async for image in client.outcomes([early, *others], timeout_s=PATIENT_S):
            found.append(image)

    collecting = asyncio.create_task(collect())
    await eventually(lambda: gateway.subscribers == 1 and found)
    await gateway.finish(others[0])
    await eventually(lambda: len(found) == 2)
    await gateway.finish(others[1], how="failed")
    await eventually(lambda: len(found) == 3)
    await gateway.hang_up()
    gateway.images[others[2]] |= {"status": "failed", "completed_at": "2026-11-22T12:00:01.000Z"}  # nobody is told
    await eventually(lambda: gateway.subscribers == 1)
    await gateway.finish(others[3])
    await collecting
    assert {image.id for image in found} == {early, *others}
    told = next(image for image in found if image.id == others[0])
    assert told == await client.image(others[0]), "a message says all that asking would"


async def test_without_a_websocket_the_gateway_is_asked(gateway: FakeGateway, client: AsyncClient, photo: Path) -> None:
    gateway.outcome, gateway.streams = None, False
    batch = await client.submit_batch([photo, photo])
    waiting = asyncio.create_task(anext(client.outcomes(batch, timeout_s=PATIENT_S)))
    await eventually(lambda: gateway.seen[-1].query.get("wait"))
    await gateway.finish(batch.accepted[1])
    assert (await waiting).id == batch.accepted[1]


async def test_the_stream_says_where_it_may_have_missed_something(
    gateway: FakeGateway, client: AsyncClient, photo: Path
) -> None:
    gateway.outcome = None
    image_id = await client.submit(photo)
    told = client.stream({"image": [image_id]})
    assert await anext(told) == Gap(reason="start", cursor="e-0")
    await gateway.finish(image_id)
    outcome = await anext(told)
    assert isinstance(outcome, Outcome)
    assert (outcome.image_id, outcome.cursor) == (image_id, "e-1")
    await gateway.hang_up()
    assert await anext(told) == Gap(reason="epoch_changed", cursor="e-0")
    assert gateway.seen[-1].fields == {"type": "subscribe", "filter": {"image": [image_id]}, "since": "e-1"}
    await told.aclose()


async def test_lists_are_read_page_by_page(gateway: FakeGateway, client: AsyncClient) -> None:
    for number in range(205):
        gateway._new({"key": f"camera-{number}"}, None)
    query = ImageQuery(labels=("qr", "ean"), min_score=0.5, camera="c", status=ImageStatus.FAILED, batch="b", model="m")
    images = [image.key async for image in client.images(query)]
    assert images == [f"camera-{number}" for number in range(205)]
    first, second = gateway.seen
    assert "cursor" not in first.query
    assert second.query["min_score"] == "0.5"
    assert second.query["status"] == "failed"


async def test_upload_then_submit(gateway: FakeGateway, client: AsyncClient, photo: Path) -> None:
    uri = await client.upload(photo, "image/jpeg")
    assert gateway.seen[-1].files == [CONTENT]
    assert (await client.detect(uri)).status is ImageStatus.COMPLETED


async def test_a_picture_to_look_at_and_one_to_forget(gateway: FakeGateway, client: AsyncClient, photo: Path) -> None:
    image_id = await client.submit(photo)
    drawn = await client.annotated(image_id, AnnotatedLook(format="webp", min_score=0.5, labels=("qr",), max_side=800))
    assert drawn.startswith(b"RIFF")
    assert gateway.seen[-1].query == {"format": "webp", "min_score": "0.5", "labels": "qr", "max_side": "800"}
    await client.delete(image_id)
    with pytest.raises(ProblemError):
        await client.image(image_id)
    assert (await client.status())["store"]["backend"] == "sqlite"


def test_the_blocking_client_has_every_call_of_the_other() -> None:
    calls = {name for name, one in inspect.getmembers(AsyncClient) if not name.startswith("_") and callable(one)}
    assert calls <= {name for name in vars(Client) if not name.startswith("_")}
    assert Client.submit.__doc__ == AsyncClient.submit.__doc__


async def test_the_blocking_client(gateway: FakeGateway, photo: Path) -> None:
    def use() -> None:
        with Client(gateway.url, policy=QUICK) as client:
            image = client.detect(photo)
            assert image.status is ImageStatus.COMPLETED
            assert [one.id for one in client.images()] == [image.id]
            batch = client.submit_batch([photo, photo, photo])
            for first in client.outcomes(batch):
                assert first.finished
                break  # the rest is given up, and nothing is left running
            with pytest.raises(ProblemError):
                client.image("there-is-none")

    await asyncio.to_thread(use)
