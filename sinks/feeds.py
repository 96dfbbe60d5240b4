"""One tail, several listeners: what the log's tail tells goes to each of them in turn."""

from collections.abc import Sequence
from typing import Protocol

from sinks.events import Event


class Listener(Protocol):
    """Who is told of outcomes: `sinks.waits.Waits`, `sinks.notifier.Hub`."""

    async def publish(self, events: Sequence[Event]) -> None:
        """Take outcomes, in order."""

    def reset(self, reason: str) -> None:
        """Something between the last outcome and the next was missed."""

    def open(self) -> None:
        """The recent past has been read."""


class Feeds:
    """A feed that passes everything on, to the first listener first: put who waits least patiently there."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    async def publish(self, events: Sequence[Event]) -> None:
        """When it returns each has taken them."""
        for listener in self._listeners:
            await listener.publish(events)

    def reset(self, reason: str) -> None:
        """Tell each of a gap."""
        for listener in self._listeners:
            listener.reset(reason)

    def open(self) -> None:
        """Tell each that the history has been read."""
        for listener in self._listeners:
            listener.open()
