"""Opens a model in a process of its own, at the lowest priority: what crashes does it there, and what it measures is kept."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from detectors.curve import recall_or_measure
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.errors import ConfigurationError

# A TensorRT engine is built for minutes.
_PATIENCE_S = 1800.0
_LOOK_S = 0.2
_LONGEST_REASON = 500


def rehearse(spec: ModelSpec, learnt: Path, stop: threading.Event) -> int:
    """Open the model elsewhere, and return the memory in bytes that it took there.

    What it measures (precision, latency curve, engines) is in `learnt` then. Raises ConfigurationError where it does not open or does not
    live through it, and once `stop` is set.
    """
    given: str | None = json.dumps({"spec": asdict(spec), "learnt": str(learnt)})
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "detectors.rehearsal"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while True:
            try:
                out, err = process.communicate(given, timeout=_LOOK_S)
                break
            except subprocess.TimeoutExpired:
                given = None
                if stop.is_set() or time.monotonic() - began > _PATIENCE_S:
                    process.kill()
                    raise ConfigurationError("it was not opened in time") from None
    return _read(out, err, process.returncode)


def _read(out: str, err: str, code: int) -> int:
    try:
        said = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        last = err.strip().splitlines()[-1:] or ["nothing was said"]
        raise ConfigurationError(
            f"opening it ended the process that tried ({code}): {last[0][:_LONGEST_REASON]}"
        ) from None
    if "error" in said:
        raise ConfigurationError(str(said["error"])[:_LONGEST_REASON])
    return int(said["memory_bytes"])


def main() -> None:
    """The process: a request on stdin, an answer on the last line of stdout."""
    _stand_back()
    given = json.loads(sys.stdin.read())
    learnt, before = Path(given["learnt"]), _resident_bytes()
    try:
        detector = open_detector(ModelSpec(**given["spec"]), learnt)
        recall_or_measure(detector, learnt)
        answer: dict[str, object] = {"memory_bytes": max(0, _resident_bytes() - before)}
        detector.close()
    except ConfigurationError as error:
        answer = {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever a library raises over a file that is no model
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)  # noqa: T201 - the answer


def _stand_back() -> None:
    """Take only what nobody else wants of the processor."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):  # Linux: whoever has work is let in at once, and not after a turn
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
