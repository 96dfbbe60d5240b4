"""Images a second of the engine, beside what Ultralytics' users get and beside OpenVINO alone, on one CPU."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectors.openvino import precisions
from detectors.parity_report import read_parity_report
from detectors.spec import ModelSpec
from tests.benchmarks.engine_course import Models, ground_truth, make_models, photographs, run_side
from tests.benchmarks.races import in_turn
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Backstage

ROUNDS = 3
# Sides that do a photograph in a few hundredths of a second get all of them twice, so that a round is not over at once.
_REPEATED = ("bf16", "f16", "int8", "auto")
_PREDICT = {
    "pt": "Ultralytics predict, .pt",
    "onnx": "on its own ONNX export",
    "openvino": "on its own OpenVINO export",
}

Side = Callable[[list[str]], dict[str, Any]]
"""Sends photographs through, and says what it took."""


def run(stage: Backstage) -> Section:
    """Every side in turn, each a process of its own, on the same files."""
    models, folder = make_models(stage), photographs(stage)
    paths = [str(path) for path in sorted(folder.glob("*.jpg"))]
    offered = precisions(ModelSpec(path=str(models.onnx), device="CPU"))
    sides = {
        **_their_sides(models, stage.scratch),
        **_bare_sides(models, stage.scratch, offered),
        **{name: _our_side(spec, stage.scratch) for name, spec in _our_specs(models, offered).items()},
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    spent_ms: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name in in_turn(sides, number):
            given = paths * 2 if name.endswith(_REPEATED) else paths
            said = sides[name](given)
            rates[name].append(len(given) / said["seconds"])
            spent_ms[name].append(said["cpu_s"] / len(given) * 1e3)
            stage.say(f"round {number + 1}: {name} {rates[name][-1]:.1f} images/s")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    base = medians.get(_PREDICT["pt"])
    scores = _score(_our_specs(models, offered), folder, stage)
    return Section(
        name="engine",
        title="Images a second of the detection engine on the CPU",
        how=(
            f"{models.name}, {len(paths)} photographs, from file to boxes; {', '.join(_REPEATED)}: twice over. The engine "
            "runs as in a worker, without Kafka and without the cache of results: the loader and its decoder processes, as many calls at "
            "once as the detector asks for. OpenVINO alone is an asynchronous queue with decoding in threads meanwhile. Ultralytics' "
            "exports are as its defaults make them, and it runs as it does by default. int8 is calibrated on pictures of another kind "
            f"than the photographs; auto {_may_choose(models)} choose it. mAP50-95 is against COCO's ground truth of these "
            f"photographs. Processes of their own, {ROUNDS} rounds in turn, medians; loading and warming up are left out. Processor "
            "time is that of all threads and of the decoders."
        ),
        columns=("side", "images/s", "over predict", "processor ms an image", "mAP50-95", "rounds"),
        rows=[
            (
                name,
                f"{median:.1f}",
                f"{median / base:.2f}" if base else "-",
                f"{statistics.median(spent_ms[name]):.1f}",
                f"{scores[name]:.3f}" if name in scores else "-",
                " / ".join(f"{rate:.1f}" for rate in rates[name]),
            )
            for name, median in medians.items()
        ],
        targets=_targets(medians, offered),
        figures={"rates": rates, "spent_ms": spent_ms, "map50_95": scores},
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


def _their_sides(models: Models, scratch: Path) -> dict[str, Side]:
    if models.checkpoint is None:
        return {}
    files = {"pt": models.checkpoint, **models.theirs}

    def side(model: Path) -> Side:
        return lambda paths: run_side("predict", {"model": str(model), "paths": paths, "device": "cpu"}, scratch)

    return {_PREDICT[form]: side(path) for form, path in files.items()}


def _bare_sides(models: Models, scratch: Path, offered: tuple[str, ...]) -> dict[str, Side]:
    tasks = {name: {"model": str(models.onnx), "precision": name} for name in offered if name != "int8"}
    if models.quantised:
        rest = "bf16" if "bf16" in offered else "f32"
        tasks["int8"] = {"model": str(models.quantised), "precision": rest}

    def side(task: dict[str, str]) -> Side:
        return lambda paths: run_side("bare", {**task, "uris": [Path(path).as_uri() for path in paths]}, scratch)

    return {f"OpenVINO alone, {name}": side(task) for name, task in tasks.items()}


def _our_specs(models: Models, offered: tuple[str, ...]) -> dict[str, dict[str, str]]:
    names = [*(name for name in offered if name != "int8"), *(["int8"] if models.quantised else []), "auto"]
    specs = {f"engine, {name}": {"backend": "openvino", "precision": name} for name in names}
    specs["engine, ONNX Runtime f32"] = {"backend": "onnxruntime", "precision": "f32"}
    if models.checkpoint:
        specs["engine, torch f32"] = {"path": str(models.checkpoint), "precision": "f32"}
    return {name: {"path": str(models.onnx), "device": "cpu", **spec} for name, spec in specs.items()}


def _our_side(spec: dict[str, str], scratch: Path) -> Side:
    task = {"way": "stream", "spec": spec, "cache": str(scratch / "engine")}
    return lambda paths: run_side("engine", {**task, "paths": paths}, scratch)


def _score(specs: dict[str, dict[str, str]], folder: Path, stage: Backstage) -> dict[str, float]:
    """mAP50-95 of the engine in each precision; empty where there is no ground truth."""
    truth = ground_truth()
    if truth is None:
        return {}
    task = {"truth": str(truth), "folder": str(folder), "cache": str(stage.scratch / "engine")}
    chosen = {name: spec for name, spec in specs.items() if spec.get("backend") == "openvino"}
    said = {name: run_side("accuracy", {**task, "spec": spec}, stage.scratch) for name, spec in chosen.items()}
    for name, figures in said.items():
        stage.say(f"{name} runs in {figures['precision']}: mAP50-95 {figures['map50_95']:.4f}")
    return {name: figures["map50_95"] for name, figures in said.items()}


def _may_choose(models: Models) -> str:
    report = models.quantised and read_parity_report(models.quantised)
    return "may" if report and report.holds else "may not, as its parity report does not hold,"


def _has_amx() -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and "amx_tile" in info.read_text("utf-8")
