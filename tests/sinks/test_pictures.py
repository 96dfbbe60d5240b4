"""Annotated pictures over HTTP: fetched by somebody else, drawn here, and refused in words that programs know."""

import asyncio
import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from schemas.errors import BusyError, Reason, RejectedError
from sinks.annotated import Drawn
from sinks.results_policy import ResultsPolicy
from tests.support.contract import check_answer
from tests.support.world import BOX, World, reference, result_of, serving

PATH = "/v1/images/i1/annotated"


@dataclass(frozen=True)
class Decoded:
    pixels: NDArray[np.uint8]
    width: int = 640
    height: int = 480


class Pictures:
    """A loader that counts, and fails as it is told."""

    def __init__(self, picture: Decoded | None = None) -> None:
        self.picture = picture or Decoded(np.full((480, 640, 3), 128, np.uint8))
        self.error: Exception | None = None
        self.loaded: list[tuple[str, str | None]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, uri: str, sha256: str | None) -> Decoded:
        self.loaded.append((uri, sha256))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.picture


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, ResultsPolicy(drawn_waiting=2))
    ref = reference("i1", sha256="ab" * 32)
    world.submit(ref)
    world.complete(result_of(ref, BOX, replace(BOX, label="cat", score=0.25, x1=300, x2=400)))
    yield world
    world.close()


def opened(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body))


def boxes_in(body: bytes) -> int:
    """0, 1 (the dog, left) or 2 (the cat, too)."""
    changed = (np.abs(np.asarray(opened(body).convert("RGB")).astype(int) - 128) > 40).any(axis=2)
    half = changed.shape[1] * 200 // 640
    return int(changed[:, :half].any()) + int(changed[:, half:].any())


async def test_a_picture_in_three_forms(world: World) -> None:
    pictures = Pictures()
    async with serving(world, pictures) as caller:
        for form in ("jpeg", "webp"):
            status, body, headers = await caller.ask(f"{PATH}?format={form}")
            check_answer("GET", PATH, status, headers["Content-Type"], body)
            assert (headers["Content-Type"], opened(body).format) == (f"image/{form}", form.upper())
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Content-Disposition"] == f'inline; filename="i1.{form}"'
            assert (opened(body).size, boxes_in(body)) == ((640, 480), 2)
        status, shown, headers = await caller.ask(f"{PATH}?format=json")
        assert (status, shown["width"], shown["height"]) == (200, 640, 480)
        scheme, _, data = shown["data_url"].partition(",")
        assert (scheme, boxes_in(base64.b64decode(data))) == ("data:image/jpeg;base64", 2)
    assert set(pictures.loaded) == {("file:///pictures/dog.jpg", "ab" * 32)}


async def test_boxes_are_chosen_and_the_size_is_bounded(world: World) -> None:
    async with serving(world, Pictures()) as caller:
        assert boxes_in((await caller.ask(f"{PATH}?min_score=0.5"))[1]) == 1
        assert boxes_in((await caller.ask(f"{PATH}?labels=cat,dog"))[1]) == 2
        assert boxes_in((await caller.ask(f"{PATH}?labels=cow"))[1]) == 0
        assert opened((await caller.ask(f"{PATH}?max_side=320"))[1]).size == (320, 240)
        assert opened((await caller.ask(f"{PATH}?max_side=8192"))[1]).size == (640, 480)


async def test_reduced_pixels_show_boxes_where_they_are(world: World) -> None:
    small = Decoded(np.full((240, 320, 3), 128, np.uint8))
    async with serving(world, Pictures(small)) as caller:
        body = (await caller.ask(PATH))[1]
        assert (opened(body).size, boxes_in(body)) == ((320, 240), 2)


async def test_what_was_drawn_is_not_drawn_again(world: World) -> None:
    pictures = Pictures()
    async with serving(world, pictures) as caller:
        etag = (await caller.ask(PATH))[2]["ETag"]
        await caller.ask(PATH)
        assert len(pictures.loaded) == 1
        assert (await caller.ask(PATH, If_None_Match=etag))[0] == 304
        assert (await caller.ask(f"{PATH}?min_score=0.5", If_None_Match=etag))[0] == 200
        assert len(pictures.loaded) == 2


async def test_without_a_result_there_is_nothing_to_draw(world: World) -> None:
    queued, failed = reference("i2"), reference("i3")
    world.submit(queued, failed)
    world.fail(failed)
    async with serving(world, Pictures()) as caller:
        for name, code, again in (("i2", "image_unfinished", True), ("i3", "no_result", False)):
            status, problem, headers = await caller.ask(f"/v1/images/{name}/annotated")
            assert (status, problem["code"], "Retry-After" in headers) == (409, code, again)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RejectedError(Reason.IMAGE_CORRUPT, "secret"), 422, "image_corrupt"),
        (RejectedError(Reason.IMAGE_TOO_MANY_PIXELS, "secret"), 422, "image_too_many_pixels"),
        (RejectedError(Reason.IMAGE_NOT_FOUND, "secret"), 424, "picture_unavailable"),
        (RejectedError(Reason.IMAGE_HASH_MISMATCH, "secret"), 424, "picture_unavailable"),
        (RejectedError(Reason.URI_FORBIDDEN, "secret"), 424, "picture_unavailable"),
        (BusyError(Reason.FETCH_FAILED, "secret", 3), 503, "storage_unavailable"),
    ],
)
async def test_a_picture_that_cannot_be_had(world: World, error: Exception, status: int, code: str) -> None:
    pictures = Pictures()
    pictures.error = error
    async with serving(world, pictures) as caller:
        answer = await caller.ask(PATH)
        assert (answer[0], answer[1]["code"]) == (status, code)
        assert "secret" not in str(answer[1])
        assert ("Retry-After" in answer[2]) == (status == 503)
        pictures.error = None
        assert (await caller.ask(PATH))[0] == 200


async def test_another_picture_at_the_same_address_is_not_drawn_on(world: World) -> None:
    other = Decoded(np.zeros((480, 480, 3), np.uint8), width=480)
    async with serving(world, Pictures(other)) as caller:
        status, problem, _ = await caller.ask(PATH)
        assert (status, problem["code"], problem["reason"]) == (424, "picture_unavailable", "changed")


async def test_more_than_may_wait_are_told_to_come_again(world: World) -> None:
    pictures = Pictures()
    pictures.gate.clear()
    async with serving(world, pictures) as caller:
        waiting = [asyncio.create_task(caller.ask(f"{PATH}?max_side={100 + n}")) for n in range(2)]
        while len(pictures.loaded) < 2:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)
        status, problem, headers = await caller.ask(PATH)
        assert (status, problem["code"], "Retry-After" in headers) == (503, "overloaded", True)
        pictures.gate.set()
        assert [answer[0] for answer in await asyncio.gather(*waiting)] == [200, 200]


async def test_a_deleted_image_is_not_shown_from_memory(world: World) -> None:
    async with serving(world, Pictures()) as caller:
        etag = (await caller.ask(PATH))[2]["ETag"]
        await caller.ask("/v1/images/i1", "DELETE")
        assert (await caller.ask(PATH, If_None_Match=etag))[0] == 410


async def test_what_is_kept_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinks.results_pictures.annotate", lambda *_: Drawn(b"x" * 1000, 1, 1))
    world.policy = replace(world.policy, drawn_bytes=2500)
    pictures = Pictures()
    async with serving(world, pictures) as caller:
        for side in (100, 101, 102, 102, 101, 100):  # the first was given up for the third
            await caller.ask(f"{PATH}?max_side={side}")
    assert len(pictures.loaded) == 4


async def test_a_name_that_is_no_file_name_stays_out_of_the_header(world: World) -> None:
    ref: Any = reference('a"\r\nX: 1')
    world.submit(ref)
    world.complete(result_of(ref))
    async with serving(world, Pictures()) as caller:
        found = (await caller.ask("/v1/images?limit=200"))[1]["images"]
        link = next(image["links"]["annotated"] for image in found if image["id"] == ref.id)
        headers = (await caller.ask(link))[2]
    assert headers["Content-Disposition"] == "inline"
    assert "X" not in headers
