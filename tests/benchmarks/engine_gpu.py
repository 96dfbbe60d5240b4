"""The engine on a CUDA device: the share of the network's own throughput that decoding and boxes leave. Says so where there is none."""

from typing import Any

from detectors.choice import is_installed, sees_cuda
from tests.benchmarks.engine_course import Models, make_models, photographs, run_side
from tests.benchmarks.engine_latency import median_ms, p99_ms
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Backstage

REPEATS = 25
_DECODING = {"decoded by processes": {}, "decoded by nvJPEG": {"decode_on": "cuda:0"}}
_COLUMNS = ("what", "images/s", "p50, ms", "p99, ms", "device MiB")
_TITLE = "The detection engine on a CUDA device"


def run(stage: Backstage) -> Section:
    """Every backend that is here, from file to boxes, beside its network alone; then calls of each size."""
    if not (sees_cuda() and is_installed("torch")):
        return Section(
            name="engine-gpu",
            title=_TITLE,
            how=(
                "This machine has no CUDA device, so these figures are missing: images a second from file to boxes and their share of the "
                "network's own throughput; p50, p99 and device memory by batch size. The same command measures them where there is one."
            ),
            columns=_COLUMNS,
            rows=[("not measured", "-", "-", "-", "-")],
        )
    models, paths = make_models(stage), sorted(map(str, photographs(stage).glob("*.jpg")))
    rows: list[tuple[str, ...]] = []
    shares: dict[str, float] = {}
    figures: dict[str, Any] = {}
    for name, spec in _specs(models).items():
        cache = str(stage.scratch / "engine")
        task = {"spec": {"device": "cuda:0", **spec}, "cache": cache, "repeats": REPEATS, "paths": paths}
        kernel = run_side("kernel", task, stage.scratch)["images_per_s"]
        streams = {
            way: len(paths) * REPEATS / run_side("engine", {**task, "way": "stream", **given}, stage.scratch)["seconds"]
            for way, given in _DECODING.items()
            if not given or is_installed("torchvision")
        }
        sizes = run_side("engine", {**task, "way": "sizes"}, stage.scratch)["sizes"]
        best, rate = max(kernel.values()), max(streams.values())
        shares[name] = rate / best
        figures[name] = {"kernel": kernel, "stream": streams, "sizes": sizes}
        stage.say(f"{name}: {rate:.0f} of {best:.0f} images/s")
        rows += [
            (f"{name}, network alone", f"{best:.0f}", "-", "-", "-"),
            *((f"{name}, files to boxes, {way}", f"{rate:.0f}", "-", "-", "-") for way, rate in streams.items()),
        ]
        rows += [_row(f"{name}, calls of {size}", row) for size, row in sizes.items()]
    fastest = max(shares, key=lambda name: max(figures[name]["kernel"].values()))
    return Section(
        name="engine-gpu",
        title=_TITLE,
        how=(
            f"{models.name}, {len(paths) * REPEATS} photographs ({len(paths)} files, {REPEATS} times), from file to boxes through the "
            "loader and its decoders, or nvJPEG; the share is that of the faster. The network alone gets planes that lie on the device, "
            "in the shapes that the engine gives it, and its best batch size. By batch size: images decoded "
            "before; device memory is all that is in use there."
        ),
        columns=_COLUMNS,
        rows=rows,
        targets=[
            Target(what=f"share of the fastest network's throughput, {fastest}", measured=shares[fastest], wanted=0.70)
        ],
        figures=figures,
    )


def _specs(models: Models) -> dict[str, dict[str, Any]]:
    specs: dict[str, dict[str, Any]] = {}
    if is_installed("tensorrt"):
        specs |= {
            f"TensorRT {precision}": {"path": str(models.onnx), "backend": "tensorrt", "precision": precision}
            for precision in ("f16", "f32")
        }
    if models.checkpoint:
        eager = {"path": str(models.checkpoint), "precision": "f16"}
        specs |= {"torch f16": eager, "torch f16, compiled": {**eager, "compiled": True}}
    return specs


def _row(what: str, row: dict[str, Any]) -> tuple[str, ...]:
    memory = "-" if row["device_mib"] is None else f"{row['device_mib']:.0f}"
    return (what, f"{row['images_per_s']:.0f}", f"{median_ms([row['ms']]):.1f}", f"{p99_ms([row['ms']]):.1f}", memory)
