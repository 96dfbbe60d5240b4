"""Memory while more pictures are uploaded than any model can keep up with: this system beside a plain gateway."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl

from tests.benchmarks.engine_course import photographs
from tests.benchmarks.gateway_course import Served, make_model, plain_gateway, this_system, upload
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Stage

PER_S, SECONDS = 100.0, 60.0
FROM_S = 20.0
PICTURE = "gateway-memory.svg"
_EVERY_S = 0.5
_PLAIN, _OURS = "plain gateway", "this system"

Samples = list[tuple[float, dict[str, float]]]
"""(second, resident MiB by process), in order."""


def run(stage: Stage) -> Section:
    """Flood one, then the other, and look at their processes meanwhile."""
    model, images = make_model(stage), photographs(stage)
    samples: dict[str, Samples] = {}
    taken: dict[str, int] = {}
    for name, serve, way in ((_PLAIN, plain_gateway, "plain_flood"), (_OURS, this_system, "flood")):
        with serve(stage, model) as served:
            upload(served, way, images, stage, rate=20.0, seconds=2.0)
            with _watched(served) as samples[name]:
                said = upload(served, way, images, stage, rate=PER_S, seconds=SECONDS)
        taken[name] = len(said["done"])
        grown = _total(samples[name])[-1][1] - _at(samples[name], FROM_S)
        stage.say(
            f"{name}: {taken[name]:,} taken, {grown:+.0f} MiB after {FROM_S:.0f} s; refused: {said['refused'] or 'none'}"
        )
    _draw({name: _total(of_one) for name, of_one in samples.items()}, stage.pictures / PICTURE)
    growth = {name: _total(of_one)[-1][1] - _at(of_one, FROM_S) for name, of_one in samples.items()}
    return Section(
        name="gateway-memory",
        title="Memory of a gateway that is flooded",
        how=(
            f"{PER_S:.0f} photographs a second for {SECONDS:.0f} s, without waiting for boxes: more than the model does ({model.name}). "
            f"Resident memory of all processes of a side, Kafka not among them, whose heap is fixed; {taken[_PLAIN]:,} pictures were taken "
            f"by the plain gateway, {taken[_OURS]:,} by this system."
        ),
        columns=("second", *(f"{name}, MiB" for name in samples)),
        rows=[
            (f"{mark:.0f}", *(f"{_at(of_one, mark):.0f}" for of_one in samples.values()))
            for mark in (1, FROM_S, 40, SECONDS - 1)
        ],
        targets=[
            Target(
                what=f"this system's growth after {FROM_S:.0f} s as a share of the plain gateway's",
                measured=growth[_OURS] / growth[_PLAIN],
                wanted=0.1,
                at_least=False,
            )
        ],
        picture=PICTURE,
        figures={"samples": samples, "taken": taken},
    )


@contextmanager
def _watched(served: Served) -> Iterator[Samples]:
    """Samples that grow while the block runs."""
    samples: Samples = []
    ended, began = threading.Event(), time.monotonic()

    def watch() -> None:
        while not ended.is_set():
            samples.append((time.monotonic() - began, served.resident_mib()))
            ended.wait(_EVERY_S)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def _total(samples: Samples) -> list[tuple[float, float]]:
    return [(second, sum(by_process.values())) for second, by_process in samples]


def _at(samples: Samples, second: float) -> float:
    """The first at or after a second, or the last."""
    total = _total(samples)
    return next((mib for at, mib in total if at >= second), total[-1][1])


def _draw(samples: dict[str, list[tuple[float, float]]], path: Path) -> None:
    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "sightstream"
    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    for colour, (name, of_one) in zip(("tab:red", "tab:green"), samples.items(), strict=True):
        axes.plot([second for second, _ in of_one], [mib for _, mib in of_one], color=colour, label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds of the flood")
    axes.set_ylabel("resident memory, MiB")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
