"""Images a second of the engine, beside what Ultralytics' users get and beside OpenVINO alone, on one CPU."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectors.openvino import precisions
from detectors.spec import ModelSpec
from tests.benchmarks.engine_course import Models, make_models, photographs, run_side
from tests.benchmarks.races import in_turn
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Backstage

REPEATS, ROUNDS = 2, 3
_PREDICT = {
    "pt": "Ultralytics predict, .pt",
    "onnx": "on its own ONNX export",
    "openvino": "on its own OpenVINO export",
}

Side = Callable[[], dict[str, Any]]


def run(stage: Backstage) -> Section:
    """Every side in turn, each a process of its own, on the same files."""
    models, folder = make_models(stage), photographs(stage)
    paths = [str(path) for path in sorted(folder.glob("*.jpg"))] * REPEATS
    offered = precisions(ModelSpec(path=str(models.onnx), device="CPU"))
    sides = {
        **_their_sides(models, paths, stage.scratch),
        **_bare_sides(models, paths, stage.scratch, offered),
        **_our_sides(models, paths, stage.scratch, offered),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    spent_ms: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name in in_turn(sides, number):
            said = sides[name]()
            rates[name].append(len(paths) / said["seconds"])
            spent_ms[name].append(said["cpu_s"] / len(paths) * 1e3)
            stage.say(f"round {number + 1}: {name} {rates[name][-1]:.1f} images/s")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    base = medians.get(_PREDICT["pt"])
    return Section(
        name="engine",
        title="Images a second of the detection engine on the CPU",
        how=(
            f"{models.name}, {len(paths)} photographs ({len(paths) // REPEATS} files, {REPEATS} times), from file to boxes. The engine "
            "runs as in a worker, without Kafka and without the cache of results: the loader and its decoder processes, as many calls at "
            "once as the detector asks for. OpenVINO alone is an asynchronous queue with decoding in threads meanwhile. Ultralytics' "
            "exports are as its defaults make them. int8 is calibrated on the same photographs. Processes of their own, "
            f"{ROUNDS} rounds in turn, medians; loading and warming up are left out. Processor time is that of all threads and of the "
            "decoders."
        ),
        columns=("side", "images/s", "over predict", "processor ms an image", "rounds"),
        rows=[
            (
                name,
                f"{median:.1f}",
                f"{median / base:.2f}" if base else "-",
                f"{statistics.median(spent_ms[name]):.1f}",
                " / ".join(f"{rate:.1f}" for rate in rates[name]),
            )
            for name, median in medians.items()
        ],
        targets=_targets(medians, offered),
        figures={"rates": rates, "spent_ms": spent_ms},
    )


def _targets(medians: dict[str, float], offered: tuple[str, ...]) -> list[Target]:
    auto = medians["engine, auto"]
    best_bare = max(medians[f"OpenVINO alone, {name}"] for name in offered)
    targets = [Target(what="engine over the best of OpenVINO alone", measured=auto / best_bare, wanted=0.95)]
    if _PREDICT["pt"] in medians:
        exports = max(medians[_PREDICT["onnx"]], medians[_PREDICT["openvino"]])
        targets += [
            Target(
                what="engine over predict", measured=auto / medians[_PREDICT["pt"]], wanted=5.0 if _has_amx() else 4.0
            ),
            Target(what="engine over predict on its best export", measured=auto / exports, wanted=1.6),
        ]
    return targets


def _their_sides(models: Models, paths: list[str], scratch: Path) -> dict[str, Side]:
    if models.checkpoint is None:
        return {}
    files = {"pt": models.checkpoint, **models.theirs}

    def side(model: Path) -> Side:
        return lambda: run_side("predict", {"model": str(model), "paths": paths, "device": "cpu"}, scratch)

    return {_PREDICT[form]: side(path) for form, path in files.items()}


def _bare_sides(models: Models, paths: list[str], scratch: Path, offered: tuple[str, ...]) -> dict[str, Side]:
    uris = [Path(path).as_uri() for path in paths]
    tasks = {name: {"model": str(models.onnx), "precision": name} for name in offered if name != "int8"}
    if models.quantised:
        rest = "bf16" if "bf16" in offered else "f32"
        tasks["int8"] = {"model": str(models.quantised), "precision": rest}

    def side(task: dict[str, str]) -> Side:
        return lambda: run_side("bare", {**task, "uris": uris}, scratch)

    return {f"OpenVINO alone, {name}": side(task) for name, task in tasks.items()}


def _our_sides(models: Models, paths: list[str], scratch: Path, offered: tuple[str, ...]) -> dict[str, Side]:
    names = [*(name for name in offered if name != "int8"), *(["int8"] if models.quantised else []), "auto"]
    specs = {f"engine, {name}": {"backend": "openvino", "precision": name} for name in names}
    specs["engine, ONNX Runtime f32"] = {"backend": "onnxruntime", "precision": "f32"}
    if models.checkpoint:
        specs["engine, torch f32"] = {"path": str(models.checkpoint), "precision": "f32"}

    def side(spec: dict[str, str]) -> Side:
        given = {"path": str(models.onnx), "device": "cpu", **spec}
        task = {"way": "stream", "spec": given, "paths": paths, "cache": str(scratch / "engine")}
        return lambda: run_side("engine", task, scratch)

    return {name: side(spec) for name, spec in specs.items()}


def _has_amx() -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and "amx_tile" in info.read_text("utf-8")
