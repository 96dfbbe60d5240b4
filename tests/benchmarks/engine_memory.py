"""Memory of the engine over a long stream of images of mixed sizes: flat, whatever shapes come by."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from tests.benchmarks.engine_course import run_side
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Backstage
from tests.support.images import encode, photograph
from tests.support.models import write_tiny_yolo

IMAGES, FROM, FILES = 20_000, 4_000, 400
PICTURE = "engine-memory.svg"
_BACKENDS = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}

Samples = list[tuple[int, float]]
"""(images done, resident MiB), in order."""


def run(stage: Backstage) -> Section:
    """Stream the images through a cheap model on each backend, and look at the process and its decoders as it goes."""
    model, folder = write_tiny_yolo(stage.scratch / "cheap.onnx"), _pictures(stage.scratch)
    paths = sorted(map(str, folder.iterdir()))
    samples: dict[str, Samples] = {}
    for backend, name in _BACKENDS.items():
        spec = {"path": str(model), "backend": backend, "device": "cpu", "precision": "f32", "image_size": 640}
        said = run_side("engine", {"way": "memory", "spec": spec, "paths": paths}, stage.scratch)
        samples[name] = [(int(done), float(mib)) for done, mib in said["samples"]]
        stage.say(f"{name}: {_growth(samples[name]):+.1f} % at most after {FROM:,} of {IMAGES:,} images")
    _draw(samples, stage.pictures / PICTURE)
    return Section(
        name="engine-memory",
        title="Memory of the engine over images of mixed sizes",
        how=(
            f"{IMAGES:,} images, drawn from {FILES} JPEG, PNG and WebP files of 16 to 2,400 pixels a side in no order, through the "
            "loader, its decoders and a cheap network with a YOLOv8 head at 640 pixels; every multiple of the stride is a canvas of its "
            "own. Resident memory of the process and its decoders together, looked at every 500 images; growth is that of the highest "
            f"point after {FROM:,}. The backends on torch are not in this."
        ),
        columns=("images done", *(f"{name}, MiB" for name in samples)),
        rows=[
            (f"{mark:,}", *(f"{dict(of_one)[mark]:.0f}" for of_one in samples.values()))
            for mark in (500, FROM, 8_000, 12_000, 16_000, IMAGES)
        ],
        targets=[
            Target(
                what=f"most growth after {FROM:,} images, {name}, %",
                measured=_growth(of_one),
                wanted=10,
                at_least=False,
            )
            for name, of_one in samples.items()
        ],
        picture=PICTURE,
        figures={"samples": samples},
    )


def _growth(samples: Samples) -> float:
    """How far the highest point after the first images is above the level that they left, in percent."""
    return (max(mib for done, mib in samples if done >= FROM) / dict(samples)[FROM] - 1) * 100


def _pictures(scratch: Path) -> Path:
    """Files of every size and shape; most are of ordinary size, as bytes and time are spent on pixels."""
    folder, rng = scratch / "mixed", np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for seed in range(FILES):
        largest = 2_400 if seed % 20 == 0 else 700
        width, height = (int(side) for side in np.exp(rng.uniform(np.log(16), np.log(largest), 2)))
        kind = ("JPEG", "JPEG", "JPEG", "PNG", "WEBP")[seed % 5]
        (folder / f"{seed:04d}.{kind.lower()}").write_bytes(encode(photograph(seed, width, height), kind))
    return folder


def _draw(samples: dict[str, Samples], path: Path) -> None:
    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "sightstream"
    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    for name, of_one in samples.items():
        axes.plot([done for done, _ in of_one], [mib for _, mib in of_one], label=name)
    axes.axvline(FROM, color="grey", linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("images done")
    axes.set_ylabel("resident memory, MiB")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
