"""How many cores this process may keep busy: those it may run on, and no more than its control group has time for."""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """At least 1. A quota such as a container's CPU limit counts rounded up. Linux's control groups, version 2; others have no quota."""
    return count_cores(len(os.sched_getaffinity(0)), _read_quotas())


def count_cores(cores: int, quotas: Iterable[str]) -> int:
    """The cores that are left of so many under quotas as `cpu.max` holds them: `max 100000`, or microseconds in each period of so many."""
    for quota in quotas:
        granted, _, period = quota.partition(" ")
        if granted.isdecimal() and period.strip().isdecimal():
            cores = min(cores, math.ceil(int(granted) / int(period)))
    return max(1, cores)


def _read_quotas() -> Iterator[str]:
    """The `cpu.max` of this process's group and of all that it lies in. Source: the kernel's admin-guide/cgroup-v2."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            if line.startswith("0::/"):
                group = PurePosixPath(line.removeprefix("0::/"))
                for directory in (group, *group.parents):
                    with suppress(OSError):
                        yield (_GROUPS / directory / "cpu.max").read_text("ascii")
