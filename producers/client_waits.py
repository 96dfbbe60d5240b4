"""Waiting for many images: told by websocket, and asking where there is none."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from producers.client_http import Connection
from producers.client_images import Image
from producers.client_streams import Gap, follow
from schemas.errors import SightstreamError

MOST_FILTERED = 100
_ASK_AGAIN_S, _ASK_AGAIN_MOST_S = 2.0, 30.0
_HELD_S = 20.0
_SOON_S = 2.0  # the store may be a moment behind the stream

Read = Callable[[str, float], Awaitable[Image]]
"""`(id, wait_s)`: an image as it stands, held for its outcome for so long."""


class UnfinishedError(SightstreamError, TimeoutError):
    """These images have no outcome yet, and time is over. They are not lost: ask again later."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = tuple(ids)
        shown = ", ".join(self.ids[:3]) + (" ..." if len(self.ids) > 3 else "")
        super().__init__(f"{len(self.ids)} images have no outcome yet: {shown}")


class Waiting:
    """Images that are waited for. A stream tells of most outcomes at once; asking finds those that it cannot tell of.

    Asking is needed at the start and after each gap, since the stream begins later than the work; now and then beside the stream, since the
    store that answers may be behind it; and all the time where no stream can be had.
    """

    def __init__(self, connection: Connection, read: Read, ids: Iterable[str], wanted: Mapping[str, Any]) -> None:
        self._connection = connection
        self._read = read
        self._wanted = wanted
        self._pending = dict.fromkeys(ids)
        self._found: asyncio.Queue[Image | Exception] = asyncio.Queue()
        self._ask = asyncio.Event()
        self._streaming = True

    async def outcomes(self, timeout_s: float | None) -> AsyncGenerator[Image, None]:
        """Each image once, when it has its outcome. Raises UnfinishedError, and what asking raises."""
        clock = asyncio.get_running_loop().time
        deadline = None if timeout_s is None else clock() + timeout_s
        tasks = [asyncio.create_task(self._guarded(work)) for work in (self._listen, self._keep_asking)]
        try:
            while self._pending:
                image = await asyncio.wait_for(self._found.get(), None if deadline is None else deadline - clock())
                if isinstance(image, Exception):
                    raise image
                if image.id in self._pending:
                    del self._pending[image.id]
                    yield image
        except TimeoutError:
            raise UnfinishedError(self._pending) from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        """Take what the stream tells; without one leave everything to asking."""
        try:
            async with aclosing(follow(self._connection, self._wanted)) as told:
                async for item in told:
                    if isinstance(item, Gap):
                        self._ask.set()
                    elif item.image_id not in self._pending:
                        continue
                    elif item.image is not None:
                        self._take(item.image)
                    else:
                        self._take(await self._read(item.image_id, _SOON_S))
        except SightstreamError:
            self._streaming = False
            self._ask.set()

    async def _keep_asking(self) -> None:
        pause_s = _ASK_AGAIN_S
        while self._pending:
            await self._ask_for_all()
            if self._streaming:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ask.wait(), pause_s)
                self._ask.clear()
                pause_s = min(_ASK_AGAIN_MOST_S, pause_s * 2)

    async def _ask_for_all(self) -> None:
        """Read every pending image once, a few at a time; without a stream the server holds each answer for a while."""
        concurrency = self._connection.policy.concurrency
        held_s = 0.0 if self._streaming else max(1.0, _HELD_S * min(1.0, concurrency / len(self._pending)))
        ids = iter(list(self._pending))

        async def ask() -> None:
            for identifier in ids:  # shared: each takes the next
                if identifier in self._pending:
                    self._take(await self._read(identifier, held_s))

        await asyncio.gather(*(self._guarded(ask) for _ in range(min(concurrency, len(self._pending)))))

    def _take(self, image: Image) -> None:
        if image.finished:
            self._found.put_nowait(image)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Whatever goes wrong is raised where outcomes are waited for."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - raised there
            self._found.put_nowait(error)
