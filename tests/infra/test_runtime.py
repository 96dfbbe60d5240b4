"""Parts of one process: side by side, ended in order, with a limit."""

import asyncio
import signal
import subprocess
import sys
import threading

import pytest

from infra.runtime import Run, run_process, run_together, threaded

LIMIT_S = 30


def _part(name: str, ended: list[str], error: Exception | None = None) -> Run:
    async def run(stop: asyncio.Event) -> None:
        if error is not None:
            raise error
        await stop.wait()
        ended.append(name)

    return run


async def test_parts_end_in_the_order_given_when_told_to() -> None:
    stop = asyncio.Event()
    ended: list[str] = []
    stop.set()
    await run_together({name: _part(name, ended) for name in "abc"}, stop, lambda: ended.append("told"))
    assert ended == ["told", "a", "b", "c"]


async def test_a_part_that_breaks_ends_the_others_and_is_raised() -> None:
    stop = asyncio.Event()
    ended: list[str] = []
    parts = {"a": _part("a", ended), "b": _part("b", ended, OSError("gone")), "c": _part("c", ended)}
    with pytest.raises(OSError, match="gone"):
        await run_together(parts, stop)
    assert ended == ["a", "c"]
    assert stop.is_set()


async def test_a_part_that_is_done_ends_the_others() -> None:
    async def done(_: asyncio.Event) -> None:
        return

    ended: list[str] = []
    await run_together({"a": _part("a", ended), "done": done}, asyncio.Event())
    assert ended == ["a"]


async def test_a_blocking_part_hears_the_end_in_its_thread() -> None:
    seen: list[str] = []

    def block(ended: threading.Event) -> None:
        seen.append(threading.current_thread().name)
        ended.wait(LIMIT_S)

    stop = asyncio.Event()
    running = asyncio.ensure_future(threaded(block, "sink")(stop))
    stop.set()
    await asyncio.wait_for(running, LIMIT_S)
    assert seen[0].startswith("sink")


async def test_a_blocking_part_that_breaks_is_raised() -> None:
    def fail(_: threading.Event) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        await asyncio.wait_for(threaded(fail, "sink")(asyncio.Event()), LIMIT_S)


def test_a_process_returns_when_its_work_does() -> None:
    done: list[bool] = []

    async def main(_: asyncio.Event) -> None:
        done.append(True)

    run_process(main, grace_s=LIMIT_S)
    assert done == [True]


_HANGS = """
import asyncio, sys, time
from infra.runtime import run_process
async def main(stop):
    print("ready", flush=True)
    await stop.wait()
    {drain}
run_process(main, grace_s={grace_s})
print("drained", flush=True)
"""


def _run(drain: str, grace_s: float, signals: list[signal.Signals]) -> tuple[int, str]:
    code = _HANGS.format(drain=drain, grace_s=grace_s)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            for number in signals:
                process.send_signal(number)
            return process.wait(LIMIT_S), process.stdout.read()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_0(number: signal.Signals) -> None:
    assert _run("pass", LIMIT_S, [number]) == (0, "drained\n")


def test_a_drain_that_hangs_is_ended_when_its_time_is_up_even_if_the_loop_hangs() -> None:
    assert _run("time.sleep(1000)", 0.2, [signal.SIGTERM]) == (1, "")


def test_a_second_sigterm_does_not_cut_the_drain_short() -> None:
    drain = "await asyncio.sleep(0.5)"
    assert _run(drain, LIMIT_S, [signal.SIGTERM, signal.SIGTERM]) == (0, "drained\n")


def test_a_second_ctrl_c_ends_at_once() -> None:
    drain = "print('draining', flush=True); await asyncio.Event().wait()"
    code = _HANGS.format(drain=drain, grace_s=1000)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "draining\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT_S) == 1
        finally:
            process.kill()
