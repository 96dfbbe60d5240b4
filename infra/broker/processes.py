"""Servers of our own that outlive the process which started them, known by pid and moment of birth."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import FatalError

_POLL_S = 0.02
# Servers inherit nothing: no option of somebody's shell, and no secret of ours, reaches them.
ENVIRONMENT = {"LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Process:
    """A process by id and birth, so that a stranger who was given the same id later is never signalled."""

    pid: int
    born: str

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        _reap(self.pid)
        return _birth(self.pid) == self.born

    def send(self, number: signal.Signals) -> bool:
        """Signal it if it is still the one that we mean; False if it is gone."""
        if not self.alive():
            return False
        os.kill(self.pid, number)
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is gone; False if it still runs after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def pause(self, timeout_s: float = 10.0) -> None:
        """SIGSTOP, and wait until it stands still."""
        deadline = time.monotonic() + timeout_s
        self.send(signal.SIGSTOP)
        while self.alive() and not _look(self.pid)[0].startswith("T"):
            if time.monotonic() > deadline:
                raise FatalError(f"process {self.pid} does not stand still")
            time.sleep(_POLL_S)

    def kill(self, timeout_s: float = 10.0) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        if not self.wait(timeout_s):
            raise FatalError(f"process {self.pid} does not die")


def identify(pid: int) -> Process:
    """The process that has this id now."""
    return Process(pid, _birth(pid) or "")


def spawn(command: Sequence[str | Path], log_path: Path) -> Process:
    """Start a server in a session of its own, both outputs to `log_path` (the last run's log is kept as `.1`)."""
    if log_path.exists():
        log_path.replace(log_path.with_name(log_path.name + ".1"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    arguments = [str(word) for word in command]
    pid = os.posix_spawn(
        arguments[0],
        arguments,
        ENVIRONMENT,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log_path), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return identify(pid)


def stop_all(processes: Sequence[Process], grace_s: float) -> None:
    """SIGTERM to all at once, SIGKILL to those that still run after `grace_s` seconds."""
    deadline = time.monotonic() + grace_s
    for process in processes:
        process.send(signal.SIGCONT)  # a paused one would not hear
        process.send(signal.SIGTERM)
    for process in processes:
        if not process.wait(max(0.0, deadline - time.monotonic())):
            process.kill()


def log_tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text("utf-8", errors="replace").splitlines()[-lines:]) or "(empty log)"


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):  # not our child: whoever started it, or init, reaps it
        os.waitpid(pid, os.WNOHANG)


def _birth(pid: int) -> str | None:
    """When the process began, in the system's own words; None if it is gone or a zombie."""
    _, born = _look(pid)
    return born


def _look(pid: int) -> tuple[str, str | None]:
    """State letter and birth of a process; no birth if it is gone or a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return "", None
        # A killed server is a zombie while its last threads still hold its sockets: it is gone when they are.
        return state, None if state in "ZX" and int(fields[16]) <= 1 else fields[18]
    command = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split(maxsplit=1)  # noqa: S603 - fixed
    state, born = shown if len(shown) == 2 else ("Z", "")
    return state, None if state.startswith("Z") else born.strip()
