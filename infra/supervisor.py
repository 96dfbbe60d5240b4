"""Keeps a worker alive: a process that has everything imported forks it, and forks it again when it dies.

A successor that starts from scratch spends most of a take-over on imports; one that is forked has them already.
"""

import ctypes
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_CONFIGURATION_ERROR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RespawnPolicy:
    """How soon a successor starts: at once; while workers live less than `healthy_s`, after `first_pause_s`, then twice that, and so on."""

    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    healthy_s: float = 30.0

    def pause_s(self, failures: int) -> float:
        """Before the next start, after so many workers in a row that died young."""
        return 0.0 if failures <= 1 else float(min(self.first_pause_s * 2 ** (failures - 2), self.longest_pause_s))


class Supervisor:
    """Forks the worker; SIGTERM and SIGINT are passed on to it and end both.

    To be used before the process has a second thread: a fork keeps only the one that calls it.
    """

    def __init__(self, policy: RespawnPolicy | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy or RespawnPolicy()
        self._now = now
        self._child = 0
        self._asked = 0
        self._wake = threading.Event()

    def run(self) -> None:
        """Return in each worker that is forked; the supervisor itself leaves by SystemExit when there is nothing left to do.

        Its exit code is the worker's, where that ended as asked to, with 0, or with a configuration error (2); everything else is
        followed by another worker.
        """
        gc.freeze()  # what was imported stays shared: a collection in the worker need not write to it
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        failures = 0
        while True:
            began = self._now()
            if self._fork():
                return
            code = self._wait()
            if self._asked or code in {0, _CONFIGURATION_ERROR}:
                sys.exit(code)
            failures = 1 if self._now() - began >= self._policy.healthy_s else failures + 1
            pause_s = self._policy.pause_s(failures)
            log.error("the worker ended with %s; another one starts in %g s", _describe(code), pause_s)
            self._wake.wait(pause_s)
            if self._asked:
                sys.exit(0)

    def _fork(self) -> bool:
        """Whether this is the worker."""
        supervisor = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        self._child = os.fork()
        if not self._child:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            _die_with(supervisor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        return not self._child

    def _wait(self) -> int:
        """The worker's exit code, negative for the signal that ended it. Buries orphans too, as the first process of a container must."""
        while True:
            pid, status = os.wait()
            if pid == self._child:
                self._child = 0
                code = os.waitstatus_to_exitcode(status)
                # Not yet listening when it was asked to stop: nothing had begun.
                return 0 if self._asked and code == -self._asked else code

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._asked = number
        self._wake.set()
        if self._child:
            os.kill(self._child, number)


def _die_with(supervisor: int) -> None:
    """Let the kernel kill this worker when its supervisor dies (Linux): nobody would start another one in its place."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)


def _describe(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
