"""The hub: takes events from the log's tail and gives each subscriber those it asked for, without waiting for any of them."""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.errors import SightstreamError
from sinks import metrics
from sinks.events import Event
from sinks.filters import Audience, Filter, InvalidMessageError
from sinks.outbox import Close, Closing, Outbox
from sinks.ring import Cursor, Lost, Message, Ring

_SLICE = 256  # events taken before writers get their turn


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifierPolicy:
    """Knobs of the notifier. All bounds are per process.

    `history_*`: what clients can resume from. `replay_events`: the most that one resume gives. `queue_*`: what may wait for one client.
    `tick_ms`: how long a busy client's events gather into one write; longer where more clients are busy than `frames_per_s` allows, since a
    write costs the same whatever is in it. `origins`: browser origins let in besides loopback pages of this
    very server, such as `https://app.example.com`. `recheck_s`: how soon a credential that has ended closes its connections.
    """

    history_events: int = 50_000
    history_bytes: int = 64 << 20
    replay_events: int = 1_000
    queue_events: int = 4_000
    queue_bytes: int = 1 << 20
    tick_ms: float = 20.0
    frames_per_s: float = 40_000.0
    send_timeout_s: float = 10.0
    heartbeat_s: float = 25.0
    subscribe_within_s: float = 10.0
    lifetime_s: float = 3600.0
    drain_s: float = 5.0
    reconnect_spread_s: float = 5.0
    connections: int = 10_000
    connections_per_address: int = 256
    connections_per_tenant: int = 4_000
    connects_per_s: float = 200.0
    inbound_per_minute: float = 100.0
    inbound_bytes: int = 65_536
    recheck_s: float = 1.0
    origins: tuple[str, ...] = ()


class UnavailableError(SightstreamError):
    """Nobody can come in now: the history is being read, or the notifier is going away. Try again, here or elsewhere."""


class Hub:
    """History, subscriptions and queues. Everything runs on one event loop; only `publish` and `drain` ever wait.

    It tells what the log holds and nothing else. A subscriber gets every event that it wants from its start on, in the order
    in which the hub took it (the log's order within a partition, hence per key), once while its id is in the history; or it is told
    that something is missing (`recovered: false`, `gap`, a close code). Until `open` is called nobody should be let in:
    the history is being read.
    """

    def __init__(self, policy: NotifierPolicy | None = None, epoch: str | None = None) -> None:
        self.policy = policy or NotifierPolicy()
        self._ring = Ring(self.policy.history_events, self.policy.history_bytes, epoch)
        self._audience: Audience[Outbox] = Audience()
        self._filters: dict[Outbox, Filter | None] = {}
        self._busy: set[Outbox] = set()
        self._open = False
        self._draining = False
        self._deserted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def cursor(self) -> str:
        """The place after the newest event."""
        return str(self._ring.cursor)

    @property
    def ready(self) -> bool:
        """Whether clients may come in."""
        return self._open and not self._draining

    @property
    def connections(self) -> int:
        """How many clients there are."""
        return len(self._filters)

    def open(self) -> None:
        """Let clients in: the history is complete."""
        self._open = True

    async def publish(self, events: Sequence[Event]) -> None:
        """Take events in their order. When it returns they are in the history and in the queues; slow clients do not delay it."""
        for start in range(0, len(events), _SLICE):
            self.take(events[start : start + _SLICE])
            await asyncio.sleep(0)

    def take(self, events: Sequence[Event]) -> None:
        """`publish` in one go, for callers that give few at a time."""
        for event in events:
            message = self._ring.take(event)
            if message is not None:
                for outbox in self._audience.of(event.subject):
                    outbox.offer(message)

    def reset(self, reason: str) -> None:
        """Something of the log was missed: begin a new epoch, so that nobody resumes across it, and tell everybody."""
        self._ring.renew()
        gap = self._notice("gap", recovered=False, reason=reason, current=self.cursor)
        for outbox in self._filters:
            outbox.offer(gap)

    def join(self) -> Outbox:
        """A place for one client, to be given back with `leave`. Raises UnavailableError."""
        if not self.ready:
            raise UnavailableError("the notifier is starting or going away")
        outbox = Outbox(self.policy.queue_events, self.policy.queue_bytes, self._busy)
        self._filters[outbox] = None
        metrics.ws_connections.set(len(self._filters))
        return outbox

    def subscribe(self, outbox: Outbox, wanted: Filter, since: str | None = None) -> str:
        """Give a client these events from now on, or from `since` on if that is whole; its former subscription ends here.

        It is told which: `recovered` is true (the missed events follow), false (with a reason), or null (nothing was asked for).
        Returns the cursor from which it really starts.
        """
        self._unsubscribe(outbox)
        missed = self._missed(wanted, since) if since is not None else []
        if isinstance(missed, Lost):
            outbox.offer(self._notice("subscribed", recovered=False, reason=missed, current=self.cursor))
        else:
            recovered = None if since is None else True
            outbox.offer(self._notice("subscribed", since, recovered=recovered, current=self.cursor))
            for message in missed:
                outbox.offer(message)
        self._filters[outbox] = wanted
        self._audience.add(wanted, outbox)
        return self.cursor if since is None or isinstance(missed, Lost) else since

    def subscribed(self, outbox: Outbox) -> bool:
        """Whether a client has said what it wants."""
        return self._filters.get(outbox) is not None

    def leave(self, outbox: Outbox) -> None:
        """Forget a client."""
        self._unsubscribe(outbox)
        outbox.detach()
        self._filters.pop(outbox, None)
        self._busy.discard(outbox)
        metrics.ws_connections.set(len(self._filters))
        if not self._filters:
            self._deserted.set()

    def tick(self) -> None:
        """Let busy clients' queues go. Called every `tick_ms`."""
        metrics.ws_queue_bytes.set(sum(outbox.queued_bytes for outbox in self._busy))
        for outbox in tuple(self._busy):
            outbox.tick()

    def heartbeat(self) -> None:
        """Tell clients for whom nothing waits how far they are, so that a quiet subscription's cursor stays fresh."""
        beat = self._notice("heartbeat")
        for outbox, wanted in self._filters.items():
            if wanted is not None and outbox.empty:
                outbox.offer(beat)

    def retire(self, outbox: Outbox, code: Close, reason: str) -> None:
        """Close one client after what is queued for it, with a moment at which to come back that spreads the load."""
        after_ms = round(random.uniform(0, self.policy.reconnect_spread_s) * 1000)  # noqa: S311 - jitter
        outbox.offer(self._notice("reconnect", reconnect_after_ms=after_ms, reason=reason))
        outbox.finish(Closing(code, reason))

    def start(self) -> None:
        """Begin ticks and heartbeats on the running loop."""
        self._tasks = [
            asyncio.create_task(every(self._tick_s, self.tick)),
            asyncio.create_task(every(lambda: self.policy.heartbeat_s, self.heartbeat)),
        ]

    async def drain(self) -> None:
        """Let nobody in any more, close everybody with 1012 after what is queued, and wait for that at most `drain_s`."""
        self._draining = True
        self._deserted.clear()
        for outbox in tuple(self._filters):
            self.retire(outbox, Close.RESTART, "restart")
        if self._filters:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._deserted.wait(), self.policy.drain_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _tick_s(self) -> float:
        return max(self.policy.tick_ms / 1000, len(self._busy) / self.policy.frames_per_s)

    def _missed(self, wanted: Filter, since: str) -> list[Message] | Lost:
        try:
            cursor = Cursor.parse(since)
        except InvalidMessageError:
            return Lost.UNKNOWN
        # Half the queue stays free for what happens meanwhile, or the resume itself would close the client as slow.
        most = min(self.policy.replay_events, self.policy.queue_events // 2)
        return self._ring.since(cursor, wanted, most, self.policy.queue_bytes // 2)

    def _unsubscribe(self, outbox: Outbox) -> None:
        wanted = self._filters.get(outbox)
        if wanted is not None:
            self._audience.remove(wanted, outbox)
            self._filters[outbox] = None

    def complain(self, outbox: Outbox, code: str, detail: str) -> None:
        """Tell a client that what it sent was not understood."""
        outbox.offer(self._notice("error", code=code, detail=detail))

    def _notice(self, kind: str, cursor: str | None = None, **fields: object) -> Message:
        cursor = cursor or self.cursor
        text = json.dumps({"type": kind, "cursor": cursor, **fields}, separators=(",", ":"))
        return Message(kind, cursor, text)


async def every(pause_s: Callable[[], float], action: Callable[[], None]) -> None:
    """Do something again and again until cancelled."""
    while True:
        await asyncio.sleep(pause_s())
        action()
