"""Clients that upload pictures to one gateway or another, all in one process, and say when each had its boxes.

Every picture is another one, by a comment within the file, so that nothing can be answered from what is known already.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

_WAIT_S = 60

Upload = Callable[[int], Awaitable[None]]
"""Client `number` uploads a picture, and returns when it has its boxes (or, to flood, when the picture is taken)."""


@dataclass(slots=True)
class Found:
    """`done`: (second of its end, milliseconds it took) of each picture. `refused`: answers that were none of success, by status."""

    done: list[tuple[float, float]] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)


class Pictures:
    """Photographs, each given once: a JPEG comment with its number comes after the first marker."""

    def __init__(self, folder: Path) -> None:
        self._photos = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
        self._numbers = itertools.count()

    def next(self) -> bytes:
        """Another one."""
        number = next(self._numbers)
        comment = f"{time.time_ns()}-{number}".encode()
        photo = self._photos[number % len(self._photos)]
        return photo[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + photo[2:]


class Uploaders:
    """The ways to upload."""

    def __init__(self, url: str, session: aiohttp.ClientSession, pictures: Pictures) -> None:
        self._url, self._session, self._pictures = url, session, pictures
        self._outcomes: dict[str, asyncio.Future[None]] = {}

    async def plain(self, _: int) -> None:
        """The plain gateway, which answers with the boxes."""
        await self._post("/detect", 200)

    async def plain_flood(self, _: int) -> None:
        """The plain gateway, without waiting."""
        await self._post("/detect?wait=false", 202)

    async def wait(self, _: int) -> None:
        """This project, which answers with the boxes."""
        await self._post(f"/v1/images?wait={_WAIT_S}", 200)

    async def flood(self, _: int) -> None:
        """This project, without waiting."""
        await self._post("/v1/images", 202)

    async def push(self, number: int) -> None:
        """This project: a 202, and the boxes by websocket."""
        answer = await self._post("/v1/images", 202, key=f"uploader-{number}")
        await asyncio.wait_for(self._outcome(answer["id"]), _WAIT_S)

    @asynccontextmanager
    async def listening(self, clients: int) -> AsyncIterator[None]:
        """Each client has a websocket of its own, that tells of its own pictures."""
        sockets = [
            await self._session.ws_connect(f"{self._url}/v1/stream?key=uploader-{number}", compress=0)
            for number in range(clients)
        ]
        readers = [asyncio.create_task(self._read(socket)) for socket in sockets]
        try:
            yield
        finally:
            for reader, socket in zip(readers, sockets, strict=True):
                reader.cancel()
                await socket.close()

    async def _post(self, path: str, wanted: int, **fields: str) -> dict[str, Any]:
        form = aiohttp.FormData(fields)
        form.add_field("file", self._pictures.next(), filename="photo.jpg", content_type="image/jpeg")
        async with self._session.post(self._url + path, data=form) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            if response.status != wanted:
                raise RefusedError(f"{response.status} {answer.get('code', '')}".strip())
            return answer

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in socket:
            for message in json.loads(frame.data):
                if message["type"] == "result" and not (outcome := self._outcome(message["image_id"])).done():
                    outcome.set_result(None)

    def _outcome(self, image_id: str) -> "asyncio.Future[None]":
        """The event may come before the answer that says the id."""
        return self._outcomes.setdefault(image_id, asyncio.get_running_loop().create_future())


class RefusedError(Exception):
    """Not what was wanted."""


async def closed_loop(upload: Upload, clients: int, seconds: float) -> Found:
    """Each client uploads again as soon as it has its boxes, for so long."""
    found, began = Found(), time.perf_counter()

    async def one(number: int) -> None:
        while time.perf_counter() - began < seconds:
            await timed(upload, number, found, began)

    await asyncio.gather(*(one(number) for number in range(clients)))
    return found


async def open_loop(upload: Upload, rate: float, seconds: float) -> Found:
    """So many a second, whatever becomes of those before."""
    found, began = Found(), time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(timed(upload, number, found, began)))
    await asyncio.gather(*tasks)
    return found


async def timed(upload: Upload, number: int, found: Found, began: float) -> None:
    """One picture."""
    start = time.perf_counter()
    try:
        await upload(number)
    except (RefusedError, aiohttp.ClientError, TimeoutError) as error:
        name = str(error) if isinstance(error, RefusedError) else type(error).__name__
        found.refused[name] = found.refused.get(name, 0) + 1
        await asyncio.sleep(0.1)
    else:
        end = time.perf_counter()
        found.done.append((end - began, (end - start) * 1000))


async def run(task: dict[str, Any]) -> Found:
    """What the task says: `way` is a method of `Uploaders`; with `rate` an open loop, else `clients` in a closed one."""
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        uploaders = Uploaders(task["url"], session, Pictures(Path(task["images"])))
        upload: Upload = getattr(uploaders, task["way"])
        if rate := task.get("rate"):
            return await open_loop(upload, rate, task["seconds"])
        if task["way"] != "push":
            return await closed_loop(upload, task["clients"], task["seconds"])
        async with uploaders.listening(task["clients"]):
            return await closed_loop(upload, task["clients"], task["seconds"])


def main() -> None:
    """Say what was found."""
    found = asyncio.run(run(json.loads(sys.argv[1])))
    print(json.dumps({"done": found.done, "refused": found.refused}), flush=True)


if __name__ == "__main__":
    main()
