"""How long one image takes, beside the backend's bare call; and throughput and latency by the size of a batch."""

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from detectors.openvino import precisions
from detectors.spec import ModelSpec
from tests.benchmarks.engine_course import make_models, photographs, run_side
from tests.benchmarks.races import in_turn
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Backstage

ROUNDS = 3
PICTURE = "engine-batches.svg"
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red")


def run(stage: Backstage) -> Section:
    """One image after the other, engine and bare call in turn; then calls of each size."""
    models, folder = make_models(stage), photographs(stage)
    paths = [str(path) for path in sorted(folder.glob("*.jpg"))]
    floats = [name for name in precisions(ModelSpec(path=str(models.onnx), device="CPU")) if name != "int8"]
    uris = [Path(path).as_uri() for path in paths]
    times: dict[str, list[list[float]]] = {f"{side} {name}": [] for name in floats for side in ("bare", "engine")}
    for number in range(ROUNDS):
        for key in in_turn(times, number):
            side, name = key.split()
            bare = {"alone": True, "model": str(models.onnx), "precision": name, "uris": uris}
            task = bare if side == "bare" else _task("alone", models.onnx, name, paths)
            times[key].append(run_side(side, task, stage.scratch)["ms"])
        stage.say(
            f"round {number + 1}: " + ", ".join(f"{key} {median_ms(runs[-1:]):.1f} ms" for key, runs in times.items())
        )
    sizes = {
        name: run_side("engine", _task("sizes", models.onnx, name, paths), stage.scratch)["sizes"] for name in floats
    }
    _draw(sizes, stage.pictures / PICTURE)
    return Section(
        name="engine-latency",
        title="Latency of one image, and throughput by batch size",
        how=(
            f"{models.name}, {len(paths)} photographs one after the other, from file to boxes, while the machine does nothing else. The "
            "bare call is decoding plus OpenVINO's own inference with its latency settings, without what lies between. "
            f"{ROUNDS} rounds in turn, medians of the rounds. By batch size: images decoded before, as many calls at once as the "
            "detector asks for."
        ),
        columns=("what", "p50, ms", "p99, ms", "images/s"),
        rows=[
            *(
                (f"one image, {key}", f"{median_ms(runs):.1f}", f"{p99_ms(runs):.1f}", "-")
                for key, runs in times.items()
            ),
            *(
                (
                    f"calls of {size}, {name}",
                    f"{median_ms([row['ms']]):.1f}",
                    f"{p99_ms([row['ms']]):.1f}",
                    f"{row['images_per_s']:.1f}",
                )
                for name, rows in sizes.items()
                for size, row in rows.items()
            ),
        ],
        targets=[
            Target(
                what=f"p50 of the engine over the bare call, {name}",
                measured=median_ms(times[f"engine {name}"]) / median_ms(times[f"bare {name}"]),
                wanted=1.1,
                at_least=False,
            )
            for name in floats
        ],
        picture=PICTURE,
        figures={"one": times, "sizes": sizes},
    )


def _task(way: str, model: Path, precision: str, paths: list[str]) -> dict[str, Any]:
    spec = {"path": str(model), "backend": "openvino", "device": "cpu", "precision": precision}
    return {"way": way, "spec": spec, "paths": paths}


def median_ms(runs: list[list[float]]) -> float:
    """The median of each run's median."""
    return statistics.median(statistics.median(run) for run in runs)


def p99_ms(runs: list[list[float]]) -> float:
    """The median of each run's 99th percentile."""
    return statistics.median(float(np.percentile(run, 99)) for run in runs)


def _draw(sizes: dict[str, dict[str, Any]], path: Path) -> None:
    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "sightstream"
    figure, (speed, latency) = plt.subplots(1, 2, figsize=(8, 3.5), layout="constrained")
    for (name, rows), colour in zip(sizes.items(), _COLOURS, strict=False):
        counts = [int(size) for size in rows]
        speed.plot(counts, [row["images_per_s"] for row in rows.values()], "o-", color=colour, label=name)
        latency.plot(
            counts, [median_ms([row["ms"]]) for row in rows.values()], "o-", color=colour, label=f"{name}, p50"
        )
        latency.plot(counts, [p99_ms([row["ms"]]) for row in rows.values()], ":", color=colour, label=f"{name}, p99")
    for axes, what in ((speed, "images a second"), (latency, "a call, ms")):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
        axes.set_ylim(bottom=0)
        axes.set_xlabel("images in a call")
        axes.set_ylabel(what)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
