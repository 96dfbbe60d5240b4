"""Runs the parts of one process side by side, and ends them in order: on a signal, when one of them breaks, or when one is done."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

Run = Callable[[asyncio.Event], Awaitable[None]]
"""A part: works until its event is set, then finishes what it began and returns. Raises where it cannot go on."""


def run_process(main: Run, grace_s: float) -> None:
    """Run `main` on a new event loop; SIGTERM and SIGINT set its event.

    From then on it has `grace_s` seconds: a process that hangs in its drain is ended with exit code 1, and a second Ctrl-C ends it at once.
    Ending hard loses no work: what was not committed is read again.
    """
    asyncio.run(_guarded(main, grace_s))


async def run_together(
    parts: Mapping[str, Run], stop: asyncio.Event, stopping: Callable[[], None] = lambda: None
) -> None:
    """Run all parts until `stop` is set or one of them returns or raises; then end each, in the order given, one after the other.

    So name those first whose output others still have to carry on. `stopping` is called before the first one ends. Raises the first
    failure once all have ended.
    """
    stops = {name: asyncio.Event() for name in parts}
    tasks = {name: asyncio.ensure_future(run(stops[name])) for name, run in parts.items()}
    asked: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([asked, *tasks.values()], return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
        stopping()
        stop.set()
    failures = []
    for name, task in tasks.items():
        stops[name].set()
        try:
            await task
        except Exception as error:  # noqa: BLE001 - raised below, once the others have ended
            log.error("%s failed: %s", name, error)  # noqa: TRY400 - the trace comes with the raise
            failures.append(error)
    if failures:
        raise failures[0]


def threaded(run: Callable[[threading.Event], None], name: str) -> Run:
    """A blocking part as one that can be awaited: it gets a thread of its own."""

    async def part(stop: asyncio.Event) -> None:
        ended = threading.Event()
        with ThreadPoolExecutor(1, name) as executor:
            work = asyncio.get_running_loop().run_in_executor(executor, run, ended)
            await first_of(work, stop)
            ended.set()
            await work

    return part


async def first_of(work: "asyncio.Future[Any]", stop: asyncio.Event) -> None:
    """Wait until `work` is over, however it ended, or `stop` is set."""
    asked: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()


async def _guarded(main: Run, grace_s: float) -> None:
    stop = asyncio.Event()
    deadline = _Deadline(grace_s)
    loop = asyncio.get_running_loop()

    def on_signal(number: int, _: FrameType | None) -> None:
        # Python's own handler rather than the loop's: it is heard even while the loop hangs.
        if deadline.begun and number == signal.SIGINT:
            _exit("interrupted twice")
        deadline.begin()
        loop.call_soon_threadsafe(_stop, stop, number)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        work = asyncio.ensure_future(main(stop))
        await first_of(work, stop)
        deadline.begin()
        await work
    finally:
        deadline.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(stop: asyncio.Event, number: int) -> None:
    log.info("%s: finishing what has begun", signal.Signals(number).name)
    stop.set()


class _Deadline:
    """Ends the process hard when its time is up: a thread, since the loop itself may be what hangs."""

    def __init__(self, grace_s: float) -> None:
        self._timer = threading.Timer(grace_s, _exit, [f"still not finished after {grace_s:g} s"])
        self._timer.daemon = True
        self.begun = False

    def begin(self) -> None:
        """Let the time run; more than once changes nothing."""
        if not self.begun:
            self.begun = True
            self._timer.start()

    def cancel(self) -> None:
        """All is finished."""
        self._timer.cancel()


def _exit(why: str) -> None:
    log.critical("ended hard: %s", why)
    logging.shutdown()
    os._exit(1)
