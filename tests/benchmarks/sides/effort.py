"""What a side spends: seconds of the clock, and processor time, which other work on the machine changes less."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def effort() -> Iterator[dict[str, float]]:
    """Filled in at the end: `seconds`, and `cpu_s` of this process and those of its children that live at both ends."""
    said: dict[str, float] = {}
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    spent, began = _spent(processes), time.perf_counter()
    yield said
    said["seconds"] = time.perf_counter() - began
    said["cpu_s"] = _spent(processes) - spent


def _spent(processes: list[psutil.Process]) -> float:
    return sum(float(times.user + times.system) for times in (process.cpu_times() for process in processes))
