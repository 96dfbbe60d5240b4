"""Memory of a worker while it works off a backlog on the bulk lane: flat, however long the backlog is."""

import subprocess
import time
from pathlib import Path

import matplotlib as mpl
import psutil

from schemas.records import Lane
from tests.benchmarks.races import Course, first_record, side_process
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Stage

FROM, RECORDS = 10_000, 200_000
PICTURE = "memory.svg"
_EVERY_S, _LIMIT_S = 0.2, 240.0

Samples = list[tuple[int, float]]
"""(references done, resident MiB), in order."""


def run(stage: Stage) -> Section:
    """Sample the worker's resident memory from its first reference to its last."""
    course = Course(stage.connection)
    course.fill(Lane.BULK, [f"file:/photos/shelf/{number:08d}.jpg" for number in range(RECORDS)])
    with side_process("worker", course.task("worker", Lane.BULK, model="fake")) as process:
        first_record(process)
        samples = _watch(course, process)
        process.terminate()
        process.wait(30)
    early = next(mib for done, mib in samples if done >= FROM)
    late = samples[-1][1]
    growth = (late / early - 1) * 100
    stage.say(f"{early:.0f} MiB after {FROM:,} references, {late:.0f} MiB after {RECORDS:,}: {growth:+.1f} %")
    _draw(samples, stage.pictures / PICTURE)
    return Section(
        name="memory",
        title="Memory of a worker over a long backlog",
        how=(
            f"{RECORDS:,} references wait on the bulk lane; one worker with the fake detector works them off. Resident memory of "
            f"its process, every {_EVERY_S:g} s."
        ),
        columns=("references done", "resident MiB"),
        rows=[(f"{done:,}", f"{mib:.0f}") for done, mib in _some(samples)],
        targets=(Target(what=f"growth from {FROM:,} references on, %", measured=growth, wanted=10, at_least=False),),
        picture=PICTURE,
        figures={"samples": samples, "growth_percent": growth},
    )


def _watch(course: Course, process: "subprocess.Popen[bytes]") -> Samples:
    memory, samples = psutil.Process(process.pid), Samples()
    deadline = time.monotonic() + _LIMIT_S
    while not samples or samples[-1][0] < RECORDS:
        if time.monotonic() > deadline or process.poll() is not None:
            raise RuntimeError(f"the worker did {samples[-1:]} of {RECORDS} references; exit code {process.poll()}")
        samples.append((sum(course.ends()), memory.memory_info().rss / 2**20))
        time.sleep(_EVERY_S)
    return samples


def _some(samples: Samples) -> Samples:
    """The first sample at or after each of a few counts."""
    marks = (FROM, 25_000, 50_000, 100_000, 150_000, RECORDS)
    return [next(sample for sample in samples if sample[0] >= mark) for mark in marks]


def _draw(samples: Samples, path: Path) -> None:
    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "sightstream"
    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    axes.plot([done for done, _ in samples], [mib for _, mib in samples], color="tab:green")
    axes.axvline(FROM, color="grey", linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("references done")
    axes.set_ylabel("resident memory, MiB")
    axes.grid(visible=True, alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
