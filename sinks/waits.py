"""Who waits for outcomes is woken by the log's tail, the moment one arrives, and never by asking a database again and again."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sinks import metrics
from sinks.events import Event, Kind

_Place = tuple[str, str]
"""Tenant and image id: nobody can wait for another tenant's image."""

_OVERHEAD_BYTES = 600  # an event's objects beside its body


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitPolicy:
    """Bounds per process. `images`: for how many may be waited at once; beyond that a wait ends at once, with what is known.

    `recent` and `recent_bytes`: outcomes kept for who asks just after they came.
    """

    images: int = 50_000
    recent: int = 20_000
    recent_bytes: int = 32 << 20


class Wait:
    """Somebody's interest in some images of a tenant, to be used as a context manager.

    From entering on no outcome is missed, so that the order is: enter, look into the store, then `finish`. `found` are the outcomes so
    far, by image id. `broken`: nothing more will be told (too many wait already, a gap in the log, shutdown), ask the store.
    """

    __slots__ = ("_done", "_ids", "_left", "_tenant", "_waits", "broken", "found")

    def __init__(self, waits: "Waits", tenant: str, ids: Sequence[str]) -> None:
        self._waits, self._tenant, self._ids = waits, tenant, frozenset(ids)
        self._left = set(self._ids)
        self._done = asyncio.Event()
        self.found: dict[str, Event] = {}
        self.broken = False

    def __enter__(self) -> Self:
        self._waits._enter(self, self._places())  # noqa: SLF001 - two halves of one thing
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waits._leave(self, self._places())  # noqa: SLF001

    @property
    def done(self) -> bool:
        """Whether nothing is waited for any more: each image has its outcome, or was passed over."""
        return not self._left

    async def finish(self, timeout_s: float) -> None:
        """Return when every image has its outcome, when the wait is broken, or after `timeout_s`; it tells by `found` which."""
        if timeout_s <= 0 or self._done.is_set():
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._done.wait()
        except TimeoutError:
            return

    def tell(self, image_id: str, event: Event) -> None:
        """An outcome has come."""
        self.found[image_id] = event
        self.pass_over(image_id)

    def pass_over(self, image_id: str) -> None:
        """Somebody else knows this image's outcome."""
        self._left.discard(image_id)
        if not self._left:
            self._done.set()

    def give_up(self) -> None:
        """No more will come."""
        self.broken = True
        self._done.set()

    def _places(self) -> list[_Place]:
        return [(self._tenant, image_id) for image_id in self._ids]


class Waits:
    """The waits of one process: a feed of the log's tail. Everything runs on one event loop, and nothing here ever blocks.

    `closed`: the process ends, so that nobody should wait any more. An outcome costs one look into a dictionary, however many wait.
    Nothing here is the truth: an outcome that came long before a wait began, or before this process did, is in the store only.
    """

    def __init__(self, policy: WaitPolicy = WaitPolicy()) -> None:
        self._policy = policy
        self._waiting: dict[_Place, set[Wait]] = {}
        self._images = 0
        self._recent: OrderedDict[_Place, Event] = OrderedDict()
        self._recent_bytes = 0
        self.closed = False

    def __len__(self) -> int:
        """Images that are waited for, each counted once for everybody who does."""
        return self._images

    def on(self, tenant: str, ids: Sequence[str]) -> Wait:
        """A wait for these images, to be entered."""
        return Wait(self, tenant, ids)

    async def wait(self, tenant: str, ids: Sequence[str], timeout_s: float) -> Mapping[str, Event]:
        """The outcomes of these images by id, when all are there, else those that came within `timeout_s`.

        Meant for images just submitted: it does not ask the store. It may return early, with fewer, where a wait is broken.
        """
        with self.on(tenant, ids) as wait:
            await wait.finish(timeout_s)
            return wait.found

    def recent(self, tenant: str, image_id: str) -> Event | None:
        """The outcome, if it came lately: what a store that is a little behind does not know yet."""
        return self._recent.get((tenant, image_id))

    async def publish(self, events: Sequence[Event]) -> None:
        """Take outcomes in the log's order: wake who waits for them and remember them for a while."""
        for event in events:
            self.take(event)

    def take(self, event: Event) -> None:
        """`publish` of one. A failure after a result changes nothing: what was found stays found."""
        place = (event.subject.tenant, event.subject.image_id)
        if not place[1]:
            return  # of a record that could not be read
        known = self._recent.get(place)
        if known is not None and known.subject.kind is Kind.RESULT and event.subject.kind is Kind.FAILED:
            return
        self._remember(place, event)
        for wait in tuple(self._waiting.get(place, ())):
            wait.tell(place[1], event)

    def reset(self, reason: str) -> None:
        """Something of the log was missed: whoever waits must look into the store."""
        del reason
        self._break()

    def open(self) -> None:
        """The recent past has been read; waits were possible before."""

    def close(self) -> None:
        """Let everybody go, now and from now on: the process ends."""
        self.closed = True
        self._break()

    def _enter(self, wait: Wait, places: Sequence[_Place]) -> None:
        missing = [place for place in places if place not in self._recent]
        for place in places:
            if place in self._recent:
                wait.tell(place[1], self._recent[place])
        if self.closed or self._images + len(places) > self._policy.images:
            wait.give_up()
            if missing:
                metrics.waits_refused.inc()
            return
        for place in places:
            self._waiting.setdefault(place, set()).add(wait)
        self._count(len(places))

    def _leave(self, wait: Wait, places: Sequence[_Place]) -> None:
        left = 0
        for place in places:
            waiting = self._waiting.get(place, set())
            if wait in waiting:
                waiting.remove(wait)
                left += 1
                if not waiting:
                    del self._waiting[place]
        self._count(-left)

    def _count(self, more: int) -> None:
        self._images += more
        metrics.waits.set(self._images)

    def _break(self) -> None:
        for wait in {wait for waiting in self._waiting.values() for wait in waiting}:
            wait.give_up()

    def _remember(self, place: _Place, event: Event) -> None:
        if (old := self._recent.pop(place, None)) is not None:
            self._recent_bytes -= _size(old)
        self._recent[place] = event
        self._recent_bytes += _size(event)
        while len(self._recent) > self._policy.recent or self._recent_bytes > self._policy.recent_bytes:
            _, old = self._recent.popitem(last=False)
            self._recent_bytes -= _size(old)


def _size(event: Event) -> int:
    return len(event.body) + _OVERHEAD_BYTES
