"""The processor's name, for results and for what a measurement holds for."""

from pathlib import Path


def processor_name() -> str:
    """As Linux tells it; `CPU` elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "CPU")
