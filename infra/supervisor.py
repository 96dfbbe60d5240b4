"""Keeps a worker alive: a process that has everything imported forks it, and forks it again when it dies.

A successor that starts from scratch spends most of a take-over on imports; one that is forked has them already.
"""

import ctypes
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_CONFIGURATION_ERROR = 2
_ENDING = {signal.SIGTERM, signal.SIGINT}
_WAITED_FOR = {*_ENDING, signal.SIGCHLD}


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
    """Forks the worker; SIGTERM and SIGINT are passed on to it and end both. Linux only.

    To be used before the process has a second Python thread: a fork keeps only the one that calls it.
    """

    def __init__(self, policy: RespawnPolicy | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy or RespawnPolicy()
        self._now = now

    def run(self) -> None:
        """Return in each worker that is forked; the supervisor itself leaves by SystemExit when there is nothing left to do.

        Its exit code is the worker's, where that ended as asked to or with 0, or with a configuration error (2) before any was healthy:
        brokers that are away look like a wrong address. Everything else is followed by another worker.
        """
        gc.freeze()  # what was imported stays shared: a collection in the worker need not write to it
        # Never handled, only waited for: so none comes at a moment that is not ready for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
        failures, proven = 0, False
        while True:
            began = self._now()
            worker = _fork()
            if not worker:
                return
            code, asked = _watch(worker)
            healthy = self._now() - began >= self._policy.healthy_s
            proven |= healthy
            if asked or code == 0 or (code == _CONFIGURATION_ERROR and not proven):
                sys.exit(code)
            failures = 1 if healthy else failures + 1
            pause_s = self._policy.pause_s(failures)
            log.error("the worker ended with %s; another one starts in %g s", _describe(code), pause_s)
            if signal.sigtimedwait(_ENDING, pause_s):
                sys.exit(0)


def _fork() -> int:
    """The worker's process id; 0 in the worker, which is as if it had been started alone, in a process group of its own.

    In the supervisor's group it would get a terminal's Ctrl-C twice, which means at once.
    """
    supervisor = os.getpid()
    worker = os.fork()
    if not worker:
        os.setpgid(0, 0)
        _die_with(supervisor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_FOR)
    return worker


def _watch(worker: int) -> tuple[int, bool]:
    """The worker's exit code, negative for the signal that ended it, and whether it was asked to end.

    Buries orphans too, as the first process of a container must.
    """
    asked = 0
    while True:
        for pid, status in _buried():
            if pid == worker:
                code = os.waitstatus_to_exitcode(status)
                # Not yet listening when it was asked to end: nothing had begun.
                return (0 if asked and code == -asked else code), bool(asked)
        number = signal.sigwait(_WAITED_FOR)
        if number in _ENDING:
            asked = number
            os.kill(worker, number)


def _buried() -> Iterator[tuple[int, int]]:
    """Process id and status of each child that has ended."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended


def _die_with(supervisor: int) -> None:
    """Let the kernel kill this worker when its supervisor dies: nobody would start another one in its place."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)


def _describe(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
