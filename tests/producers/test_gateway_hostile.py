"""Callers who mean no good: nothing they send takes the gateway down, fills its memory, or gets where it does not belong."""

import asyncio
import gzip
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.http.policies import LimitPolicy
from producers.gateway_policy import GatewayPolicy
from producers.publisher import Publisher
from producers.upload_policy import UploadPolicy
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.control import Batch
from schemas.topics import Topics
from tests.support.gateway import BOUNDARY, FORM, Caller, form, gateway_at
from tests.support.images import encode, photograph, resized_header
from tests.support.kafka import read_topic
from tests.support.quiet import NoKafka

JPEG = encode(photograph(1), "JPEG")
QUICK = LimitPolicy(body_bytes_per_s=2_000, body_window_s=0.5)


@pytest.fixture
async def nobody(tmp_path: Path) -> AsyncIterator[Caller]:
    """A gateway that fails the test if it publishes an image; afterwards nothing may be left of what it was sent."""
    uploads = UploadPolicy(url=str(tmp_path / "up"), max_bytes=100_000, spool_bytes=20_000, spool_dir=str(tmp_path))
    async with gateway_at(NoKafka(), tmp_path, uploads=uploads, limits=QUICK) as caller:
        yield caller
        await all_put_down(caller)
    assert files_under(tmp_path) == []


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def all_put_down(caller: Caller) -> None:
    async with asyncio.timeout(20):
        while caller.gateway.desk.in_hand or caller.gateway.desk.tasks:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)


class Wire:
    """A connection to the gateway, spoken to byte by byte."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host, self.reader, self.writer = host, reader, writer

    async def send(self, *lines: str, body: bytes = b"", path: str = "/v1/images") -> None:
        head = "\r\n".join((f"POST {path} HTTP/1.1", f"Host: {self._host}", *lines)) + "\r\n\r\n"
        self.writer.write(head.encode() + body)
        await self.writer.drain()

    async def answer(self) -> tuple[int, Any]:
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = await self.reader.readexactly(int(lines["Content-Length"]))
        # What is no HTTP at all has no request that an edge could answer: aiohttp says so itself, in plain text.
        return int(head.split()[1]), json.loads(body) if "json" in lines["Content-Type"] else body

    async def closed(self) -> None:
        async with asyncio.timeout(20):
            while await self.reader.read(1000):
                pass


@asynccontextmanager
async def wire(caller: Caller) -> AsyncIterator[Wire]:
    host, port = caller.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(f"{host}:{port}", reader, writer)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("kind", ["image/jpeg", FORM, "application/json"])
async def test_slowloris(nobody: Caller, kind: str) -> None:
    """A byte now and then holds a place for a moment, not for ever."""
    body = form([JPEG]) if kind == FORM else JPEG
    async with wire(nobody) as slow:
        await slow.send(f"Content-Type: {kind}", f"Content-Length: {len(body)}", body=body[:150])

        async def drip() -> None:
            for at in range(150, len(body)):
                slow.writer.write(body[at : at + 1])
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        try:
            status, problem = await slow.answer()
        finally:
            dripping.cancel()
        assert (status, problem["code"]) == (408, "request_timeout")
        await slow.closed()


@pytest.mark.kafka
async def test_a_hundred_silent_connections_are_in_nobodys_way(publisher: Publisher, tmp_path: Path) -> None:
    async with gateway_at(publisher, tmp_path / "up") as caller:
        async with AsyncExitStack() as wires:
            for _ in range(100):
                silent = await wires.enter_async_context(wire(caller))
                await silent.send("Content-Type: image/jpeg", "Content-Length: 99999", body=JPEG[:100])
            assert (await caller.send(JPEG)).status == 202
        await all_put_down(caller)


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (["Content-Type: image/jpeg", "Content-Length: 99999999999"], b""),
        (["Content-Type: application/json", "Content-Length: 99999999999"], b""),
        (
            ["Content-Type: image/jpeg", "Transfer-Encoding: chunked"],
            b"30000\r\n" + JPEG + bytes(0x30000 - len(JPEG)) + b"\r\n",
        ),
    ],
    ids=["said-image", "said-json", "chunked"],
)
async def test_too_large_is_refused_without_waiting_for_the_end(nobody: Caller, lines: list[str], body: bytes) -> None:
    async with wire(nobody) as greedy:
        await greedy.send(*lines, body=body)
        status, problem = await greedy.answer()
        assert status == 413
        assert problem["code"] in {"image_too_large", "body_too_large"}


@pytest.mark.kafka
async def test_one_file_too_large_is_one_files_problem_up_to_a_point(publisher: Publisher, tmp_path: Path) -> None:
    uploads = UploadPolicy(url=str(tmp_path / "up"), max_bytes=50_000)
    async with gateway_at(publisher, tmp_path, uploads=uploads) as caller:
        some = await caller.send(JPEG + bytes(80_000), JPEG, JPEG + bytes(60_000))
        alone = await caller.send(JPEG + bytes(80_000))
        endless = await caller.send(JPEG, JPEG + bytes(5_000_000))
        await all_put_down(caller)
    codes = [image.get("problem", {}).get("code") for image in some.body["images"]]
    assert (some.status, codes) == (202, ["image_too_large", None, "image_too_large"])
    assert (alone.status, alone.code) == (413, "image_too_large")
    assert (endless.status, endless.code, endless.body["accepted"]) == (413, "image_too_large", 1)


async def test_a_content_length_that_lies(nobody: Caller) -> None:
    async with wire(nobody) as short:  # the rest is no request: nothing of this connection is
        await short.send("Content-Type: image/jpeg", f"Content-Length: {len(JPEG) - 100}", body=JPEG)
        status, _ = await short.answer()
        assert status in {400, 422}
        await short.closed()
    async with wire(nobody) as long:
        await long.send("Content-Type: image/jpeg", f"Content-Length: {len(JPEG) + 100}", body=JPEG)
        long.writer.write_eof()
        await long.closed()
    for lines in (["Content-Length: -5"], ["Content-Length: 5", "Content-Length: 6"], ["Content-Length: x"]):
        async with wire(nobody) as odd:
            await odd.send("Content-Type: image/jpeg", *lines, body=JPEG)
            status, _ = await odd.answer()
            assert status == 400


@pytest.mark.parametrize(
    "body",
    [
        form([JPEG])[:-4],
        form([JPEG])[: len(JPEG) // 2],
        form([JPEG]).replace(b"\r\n", b"\n"),
        b"",
        b"--" + BOUNDARY.encode(),
        b"garbage" * 100,
        form([JPEG]).replace(b"form-data", b"attachment"),
        form([JPEG]).replace(b"Content-Disposition", b"Content-Position"),
        form([JPEG]).replace(b"image/jpeg", b"x" * 10_000),
        form([JPEG]).replace(b"Content-Type: image/jpeg", b"\r\n".join(b"X-%d: y" % at for at in range(100))),
        form([("key", "k")] * 5_000),
        form([("a", "b")] * 40),
        form([("key", "k")]).replace(b"\r\n\r\nk", b"\r\n\r\n\xff"),
    ],
    ids=[
        "last-boundary",
        "half",
        "line-feeds",
        "empty",
        "boundary",
        "garbage",
        "disposition",
        "none",
        "long-header",
        "headers",
        "fields",
        "unknown",
        "not-utf-8",
    ],
)
async def test_forms_that_are_none(nobody: Caller, body: bytes) -> None:
    answer = await nobody.post("/v1/images", data=body, headers={"Content-Type": FORM})
    assert (answer.status, answer.code) == (400, "invalid_request")


@pytest.mark.parametrize("boundary", ["", "x" * 300, '"a\u00e4b"'])
async def test_boundaries_that_are_none(nobody: Caller, boundary: str) -> None:
    async with wire(nobody) as odd:
        body = form([JPEG])
        await odd.send(
            f"Content-Type: multipart/form-data; boundary={boundary}", f"Content-Length: {len(body)}", body=body
        )
        status, problem = await odd.answer()
    assert (status, problem["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (["Transfer-Encoding: chunked"], b"zz\r\nhello\r\n0\r\n\r\n"),
        (["Content-Encoding: gzip", "Content-Length: 8"], b"not gzip"),
    ],
    ids=["chunks", "gzip"],
)
async def test_encodings_that_are_none(nobody: Caller, lines: list[str], body: bytes) -> None:
    async with wire(nobody) as odd:
        await odd.send("Content-Type: image/jpeg", *lines, body=body)
        status, _ = await odd.answer()
    assert status in {400, 415}


async def test_bombs(nobody: Caller) -> None:
    """What would grow is stopped by what it is, or by how much of it there is, long before it has grown."""
    before = psutil.Process().memory_info().rss
    zeros = gzip.compress(JPEG[:600] + bytes(100_000_000), 1)
    inflated = await nobody.post(
        "/v1/images", data=zeros, headers={"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}
    )
    assert inflated.status in {413, 415, 422}
    pixels = await nobody.send(resized_header(JPEG, 60_000, 60_000))
    assert (pixels.status, pixels.code) == (422, "image_too_many_pixels")
    assert psutil.Process().memory_info().rss - before < 60_000_000


def archive() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("evil.class", "x" * 1000)
    return buffer.getvalue()


@pytest.mark.parametrize("tail", [archive(), b"<html><script>alert(1)</script>", b"<?php system($_GET[0]);"])
async def test_polyglots(nobody: Caller, tail: bytes) -> None:
    answer = await nobody.send(JPEG + tail)
    assert (answer.status, answer.code) == (415, "image_type_unsupported")


async def test_headers_cannot_be_injected(nobody: Caller) -> None:
    async with wire(nobody) as sly:
        body = b"{}"
        await sly.send(
            "Content-Type: application/json", "Idempotency-Key: a\tb", f"Content-Length: {len(body)}", body=body
        )
        status, problem = await sly.answer()
    assert (status, problem["code"]) == (400, "invalid_header")


@pytest.mark.kafka
async def test_a_thousand_and_one(
    publisher: Publisher, connection: KafkaConnection, topics: Topics, codec: Codec, tmp_path: Path
) -> None:
    async with gateway_at(publisher, tmp_path / "up") as caller:
        good = await caller.send(*[JPEG] * 1000)
        bad = await caller.send(*[JPEG] * 1001)
        await all_put_down(caller)
    assert (good.status, good.body["accepted"], len(good.body["images"])) == (202, 1000, 1000)
    assert (bad.status, bad.code, bad.body["accepted"]) == (413, "too_many_images", 1000)
    assert len({image["id"] for image in bad.body["images"]}) == 1000, "what was taken is told, since it stays"
    assert len(read_topic(connection, topics.online)) == 2000
    closed = [codec.decode(message.value(), Batch) for message in read_topic(connection, topics.batches)][-1]
    assert (closed.id, closed.images, closed.attributes) == (
        bad.body["batch_id"],
        1000,
        {"interrupted": "too_many_images"},
    )


@pytest.mark.kafka
async def test_a_large_batch_is_never_in_memory(publisher: Publisher, tmp_path: Path) -> None:
    """150 MB go through; what stays is a few images' worth."""
    large = encode(photograph(4, 1200, 900), "PNG")
    count = 150_000_000 // len(large)
    process = psutil.Process()
    uploads = UploadPolicy(url=str(tmp_path / "up"), spool_bytes=500_000)
    async with gateway_at(publisher, tmp_path, uploads=uploads, policy=GatewayPolicy(at_once=4)) as caller:
        await caller.send(large, large)
        before, most = process.memory_info().rss, 0

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal most
            part = form([large])[: -len(f"--{BOUNDARY}--\r\n")]
            for _ in range(count):
                yield part
                most = max(most, process.memory_info().rss)
            yield f"--{BOUNDARY}--\r\n".encode()

        answer = await caller.post("/v1/images", data=pieces(), headers={"Content-Type": FORM})
    assert (answer.status, answer.body["accepted"]) == (202, count)
    assert most - before < 60_000_000


@pytest.mark.kafka
async def test_too_much_at_once_is_told_to_come_again(publisher: Publisher, tmp_path: Path) -> None:
    async with gateway_at(publisher, tmp_path / "up", policy=GatewayPolicy(in_hand=1)) as caller, wire(caller) as first:
        await first.send("Content-Type: image/jpeg", "Content-Length: 99999", body=JPEG[:100])
        async with asyncio.timeout(20):
            while not caller.gateway.desk.in_hand:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
        refused = await caller.send(JPEG)
        assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "overloaded", "1")
        first.writer.transport.abort()
        await all_put_down(caller)
        assert (await caller.send(JPEG)).status == 202
