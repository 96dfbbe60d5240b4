"""Images a second of the whole pipeline with a real detector, over those of the bare detector: what the pipeline costs."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from detectors.export_checkpoint import export_checkpoint
from schemas.records import Lane
from tests.benchmarks.races import Course, in_turn
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Stage
from tests.support.data import ROOT, shared_dir
from tests.support.images import encode, photograph
from tests.support.models import coco_checkpoint, write_tiny_yolo

REPEATS, ROUNDS = 4, 3


def run(stage: Stage) -> Section:
    """The worker and the bare loop take turns on the same photographs."""
    model, name = _model(stage.scratch)
    folder = _photographs(stage.scratch)
    uris = [path.as_uri() for path in sorted(folder.iterdir())] * REPEATS
    rates: dict[str, list[float]] = {"worker": [], "bare": []}
    sides = {"worker": lambda: _worker(stage, model, folder, uris), "bare": lambda: _bare(model, folder, uris)}
    for number in range(ROUNDS):
        for side in in_turn(sides, number):
            rates[side].append(sides[side]())
        stage.say(
            f"round {number + 1}: worker {rates['worker'][-1]:.1f}, OpenVINO alone {rates['bare'][-1]:.1f} images/s"
        )
    ratio = statistics.median(rates["worker"]) / statistics.median(rates["bare"])
    names = {"worker": "worker, Kafka to Kafka", "bare": "OpenVINO alone"}
    return Section(
        name="images",
        title="Images a second with a real detector, over OpenVINO alone",
        how=(
            f"{name}, {len(uris)} photographs ({len(uris) // REPEATS} files, {REPEATS} times), float 32. The bare side is OpenVINO's "
            "own asynchronous queue with the same decoder, letterbox and suppression, decoding in threads meanwhile; no Kafka. "
            f"Processes of their own, {ROUNDS} rounds in turn, medians; loading the model is left out."
        ),
        columns=("side", "images/s", "rounds"),
        rows=[
            (names[side], f"{statistics.median(rates[side]):.1f}", " / ".join(f"{rate:.1f}" for rate in rates[side]))
            for side in names
        ],
        targets=(Target(what="worker over OpenVINO alone", measured=ratio, wanted=0.95),),
        figures=rates,
    )


def _worker(stage: Stage, model: Path, folder: Path, uris: list[str]) -> float:
    course = Course(stage.connection)
    course.fill(Lane.ONLINE, uris, keys=len(uris))
    return course.race("worker", course.task("worker", model=str(model), images=str(folder)), len(uris)).per_s


def _bare(model: Path, folder: Path, uris: list[str]) -> float:
    task = json.dumps({"model": str(model), "images": str(folder), "uris": uris})
    command = [sys.executable, "-m", "tests.benchmarks.sides.bare", task]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=300).stdout
    return len(uris) / float(json.loads(said)["seconds"])


def _model(scratch: Path) -> tuple[Path, str]:
    """YOLOv8n where the shared data is, else a tiny network: then the pipeline's own cost weighs far more."""
    checkpoint = coco_checkpoint()
    if checkpoint is None:
        return write_tiny_yolo(
            scratch / "tiny.onnx"
        ), "a tiny network with a YOLOv8 head (there is no shared data here)"
    return export_checkpoint(checkpoint, scratch), "YOLOv8n of COCO as ONNX, on OpenVINO"


def _photographs(scratch: Path) -> Path:
    shared = shared_dir()
    if shared is not None:
        return shared / "datasets" / "coco-val-80" / "images"
    folder = scratch / "photographs"
    folder.mkdir(exist_ok=True)
    for seed in range(80):
        (folder / f"{seed:02d}.jpg").write_bytes(encode(photograph(seed, 640, 480), "JPEG"))
    return folder
