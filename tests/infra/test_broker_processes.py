"""Processes that outlive their parent are known for certain, and end when told."""

import signal
import sys
from pathlib import Path

import pytest

from infra.broker.processes import Process, log_tail, spawn, stop_all

_SLEEP = "import time; print('up', flush=True); time.sleep(60)"
_DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


def _start(code: str, log: Path) -> Process:
    process = spawn([sys.executable, "-c", code], log)
    while log_tail(log) != "up":
        assert process.alive(), log_tail(log)
    return process


def test_a_server_ends_at_sigterm(log: Path) -> None:
    process = _start(_SLEEP, log)
    stop_all([process], grace_s=30)
    assert not process.alive()


def test_one_that_does_not_hear_is_killed(log: Path) -> None:
    process = _start(_DEAF, log)
    stop_all([process], grace_s=0.1)
    assert not process.alive()


def test_a_paused_one_is_ended_too(log: Path) -> None:
    process = _start(_SLEEP, log)
    process.pause()
    assert process.alive()
    stop_all([process], grace_s=30)
    assert not process.alive()


def test_a_stranger_with_the_same_id_is_never_signalled(log: Path) -> None:
    process = _start(_SLEEP, log)
    try:
        stranger = Process(process.pid, "born at another time")
        assert not stranger.alive()
        assert not stranger.send(signal.SIGKILL)
        assert process.alive()
    finally:
        process.kill()


def test_the_log_of_the_run_before_is_kept(log: Path) -> None:
    for _ in range(2):
        stop_all([_start(_SLEEP, log)], grace_s=30)
    assert log_tail(log) == log_tail(log.with_name("server.log.1")) == "up"


def test_a_log_that_is_missing_or_empty_says_so(log: Path) -> None:
    assert log_tail(log) == "(no log)"
    log.touch()
    assert log_tail(log) == "(empty log)"
