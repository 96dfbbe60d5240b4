"""The supervisor of a worker, as real processes: what it starts again, what it does not, and that it leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from infra.supervisor import RespawnPolicy
from tests.support.data import ROOT
from tests.support.deliveries import eventually

_PROGRAM = """
import os, signal, sys, threading
from pathlib import Path
from infra.supervisor import RespawnPolicy, Supervisor
lives = Path(sys.argv[1])
Supervisor(RespawnPolicy(first_pause_s=float(sys.argv[2]), healthy_s=float(sys.argv[3]))).run()
count = len(lives.read_text().split()) if lives.exists() else 0
with lives.open("a") as file:
    file.write(f"{os.getpid()}\\n")
{body}
"""


@contextmanager
def supervised(
    body: str, lives: Path, pause_s: float = 0.01, healthy_s: float = 60.0
) -> Iterator["subprocess.Popen[bytes]"]:
    """A supervisor whose workers note their process ids in `lives` and then do `body`, with `count` lives before theirs."""
    program = _PROGRAM.replace("{body}", body)
    command = [sys.executable, "-c", program, str(lives), str(pause_s), str(healthy_s)]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def pids(lives: Path) -> list[int]:
    return [int(line) for line in lives.read_text().split()] if lives.exists() else []


STAY = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); threading.Event().wait(60)"


def test_a_worker_that_is_killed_has_a_successor_and_the_end_is_asked_for_by_sigterm(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    with supervised(STAY, lives) as process:
        for number in range(1, 4):
            eventually(lambda: len(pids(lives)) == number, f"worker {number} lives")  # noqa: B023 - called at once
            if number < 3:
                os.kill(pids(lives)[-1], signal.SIGKILL)
        eventually(lambda: _listens(pids(lives)[-1]), "the last worker listens")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not psutil.pid_exists(pids(lives)[-1])


def _listens(pid: int, number: signal.Signals = signal.SIGTERM) -> bool:
    """Whether the process has a handler for the signal."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) & 1 << (number - 1))


@pytest.mark.parametrize("code", [0, 2])
def test_a_worker_that_is_done_or_cannot_be_configured_is_not_started_again(tmp_path: Path, code: int) -> None:
    lives = tmp_path / "lives"
    with supervised(f"sys.exit({code})", lives) as process:
        assert process.wait(20) == code
    assert len(pids(lives)) == 1


def test_a_worker_that_was_healthy_and_then_finds_no_brokers_is_started_again(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    with supervised("sys.exit((1, 2, 0)[count])", lives, healthy_s=0.0) as process:
        assert process.wait(20) == 0
    assert len(pids(lives)) == 3


def test_ctrl_c_in_a_terminal_asks_the_worker_once(tmp_path: Path) -> None:
    lives, asked = tmp_path / "lives", tmp_path / "asked"
    body = f"""
def on_interrupt(*_):
    with open({str(asked)!r}, "a") as file:
        file.write("asked ")
    threading.Timer(0.5, os._exit, [0]).start()
signal.signal(signal.SIGINT, on_interrupt)
while True:
    signal.pause()
"""
    with supervised(body, lives) as process:
        eventually(lambda: len(pids(lives)) == 1 and _listens(pids(lives)[0], signal.SIGINT), "the worker listens")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
    assert asked.read_text() == "asked "


def test_a_worker_that_failed_is_started_again(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    with supervised("sys.exit(1 if count < 3 else 0)", lives) as process:
        assert process.wait(20) == 0
    assert len(set(pids(lives))) == 4


def test_a_pause_between_two_workers_can_be_ended(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    with supervised("sys.exit(1)", lives, pause_s=20.0) as process:
        eventually(lambda: len(pids(lives)) == 2 and not _alive(pids(lives)[-1]), "the second worker has died")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def _alive(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def test_a_worker_does_not_outlive_its_supervisor(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    with supervised("threading.Event().wait(60)", lives) as process:
        eventually(lambda: len(pids(lives)) == 1, "the worker lives")
        process.kill()
        process.wait(10)
        eventually(lambda: not psutil.pid_exists(pids(lives)[0]), "the worker is gone")


def test_successors_come_at_once_and_then_ever_later() -> None:
    policy = RespawnPolicy(first_pause_s=0.5, longest_pause_s=4)
    assert [policy.pause_s(failures) for failures in range(1, 8)] == [0, 0.5, 1, 2, 4, 4, 4]
