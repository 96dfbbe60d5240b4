"""What a benchmark is given to work with, and a description of the machine it runs on."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from schemas.connection import KafkaConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class Backstage:
    """A folder for scratch files, and where pictures go: enough for what needs no Kafka. `model`: of the benchmarks of codes."""

    scratch: Path
    pictures: Path
    model: str = "codes"

    def say(self, line: str) -> None:
        """Tell whoever watches how far it is."""
        print(f"  {line}", flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Backstage):
    """And a running Kafka."""

    connection: KafkaConnection


def machine() -> dict[str, str]:
    """Enough to know what the figures were taken on."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} logical cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }


def load() -> str:
    """How busy the machine is now, and was."""
    return " / ".join(f"{average:.1f}" for average in os.getloadavg()) + " (1, 5, 15 minutes)"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
