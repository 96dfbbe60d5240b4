"""What waits for one client: a bounded queue that never makes anybody else wait."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from sinks.ring import Message


class Close(IntEnum):
    """Websocket close codes; SSE tells the same in a last `close` event."""

    LIFETIME = 1001
    UNSUPPORTED = 1003
    CREDENTIAL = 1008
    TOO_BIG = 1009
    RESTART = 1012
    NO_SUBSCRIPTION = 4001
    SLOW = 4008
    NO_PONG = 4012
    LIMIT = 4029


@dataclass(frozen=True, slots=True)
class Closing:
    """How a connection ends."""

    code: Close
    reason: str


WriteNow = Callable[[Sequence[Message]], bool]
"""Writes messages if that takes no waiting; False where it would, and nothing was written."""


class Outbox:
    """The queue of one client, joined into one write per tick, or written at once when the client was idle.

    `offer` never blocks: beyond `events` or `size_bytes` the queue is dropped and the client closed as slow. A client that keeps up is
    written to right here; only what would have to wait is left to the one task that takes.
    `busy` is the shared set of outboxes that wait for the next tick. Used on one event loop only.
    """

    def __init__(self, events: int, size_bytes: int, busy: set["Outbox"]) -> None:
        self._limits = (events, size_bytes)
        self._busy = busy
        self._queue: list[Message] = []
        self._wake = asyncio.Event()
        self._idle = True
        self._write_now: WriteNow | None = None
        self._due = False
        self.queued_bytes = 0
        self.closing: Closing | None = None

    def attach(self, write_now: WriteNow) -> None:
        """Spare the task that takes what can be written without it. Call on the event loop."""
        self._write_now = write_now
        self._loop = asyncio.get_running_loop()

    def detach(self) -> None:
        """Undo `attach`: the client is gone, whatever is still due."""
        self._write_now = None

    def offer(self, message: Message) -> None:
        """Queue a message; ignored once the client is being closed."""
        if self.closing is not None:
            return
        events, size_bytes = self._limits
        self._queue.append(message)
        self.queued_bytes += len(message.text)
        if len(self._queue) > events or self.queued_bytes > size_bytes:
            self.abort(Closing(Close.SLOW, "slow"))
        elif self._idle or 2 * len(self._queue) > events or 2 * self.queued_bytes > size_bytes:
            self._let_go_soon()

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._queue

    def finish(self, closing: Closing) -> None:
        """Close after what is queued; the first reason given stands."""
        self.closing = self.closing or closing
        self._wake.set()

    def abort(self, closing: Closing) -> None:
        """Close at once and drop what is queued; a cursor brings it back."""
        self._queue.clear()
        self.queued_bytes = 0
        self.finish(closing)

    def tick(self) -> None:
        """Let what has gathered go; with nothing gathered the client is idle again."""
        if self._queue:
            self._let_go()
        else:
            self._idle = True
            self._busy.discard(self)

    async def take(self) -> list[Message]:
        """Wait for messages and take them all, in order. Empty means that nothing more will come: see `closing`."""
        while self.closing is None:
            await self._wake.wait()
            self._wake.clear()
            if self._queue:
                break
        return self._taken()

    def _let_go_soon(self) -> None:
        """Once whoever offers has offered all it has now."""
        if self._write_now is None:
            self._wake.set()
        elif not self._due:
            self._due = True
            self._loop.call_soon(self._let_go)

    def _let_go(self) -> None:
        self._due = False
        if not self._queue or self.closing is not None:
            return  # the last words are the task's
        if self._write_now is not None and self._write_now(self._queue):
            self._taken()
        else:
            self._wake.set()

    def _taken(self) -> list[Message]:
        self._idle = False
        self._busy.add(self)
        taken, self._queue, self.queued_bytes = self._queue, [], 0
        return taken
