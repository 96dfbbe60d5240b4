"""What the engine's benchmarks race over: the models, the photographs, and sides that each run in a process of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectors.export_checkpoint import export_checkpoint
from tests.benchmarks.stage import Backstage
from tests.support.data import ROOT, shared_dir
from tests.support.images import encode, photograph
from tests.support.models import coco_checkpoint, write_tiny_yolo

_LIMIT_S = 900
_THEIR_EXPORT = """
import sys
from detectors.ultralytics import import_confined
print(import_confined().YOLO(sys.argv[1]).export(format=sys.argv[2], imgsz=640, device="cpu"))
"""
_INT8 = """
import sys
from pathlib import Path
from detectors.export import ExportRequest, export_model
from detectors.policy import ImagePolicy
images = Path(sys.argv[2])
request = ExportRequest(source=Path(sys.argv[1]), target="openvino", precision="int8", calibration=images)
exported = export_model(request, ImagePolicy(roots=(images,)))
print(exported.report)
"""


@dataclass(frozen=True, slots=True)
class Models:
    """The same network in every form.

    `theirs`: Ultralytics' own exports by format; `quantised`: the int8 sibling of `onnx`, calibrated on other pictures than the
    photographs, if it could be made.
    """

    name: str
    checkpoint: Path | None
    onnx: Path
    theirs: Mapping[str, Path]
    quantised: Path | None


def make_models(stage: Backstage) -> Models:
    """YOLOv8n of COCO in every form, made once per run; a tiny network of the same interface where the shared data is not."""
    folder = stage.scratch / "models"
    checkpoint = coco_checkpoint()
    folder.mkdir(exist_ok=True)
    onnx = folder / "yolo.onnx"
    if not onnx.exists():
        made = write_tiny_yolo(folder / "tiny.onnx") if checkpoint is None else export_checkpoint(checkpoint, folder)
        made.rename(onnx)
        _quantise(stage, onnx)
    name = "YOLOv8n of COCO at 640 pixels" if checkpoint else "a tiny network with a YOLOv8 head (no shared data here)"
    formats = ("onnx", "openvino") if checkpoint else ()
    theirs = {form: _export_theirs(checkpoint, folder, form) for form in formats if checkpoint}
    quantised = onnx.with_name("yolo.int8.xml")
    return Models(name, checkpoint, onnx, theirs, quantised if quantised.exists() else None)


def photographs(stage: Backstage) -> Path:
    """80 photographs of COCO; drawn ones where the shared data is not."""
    shared = shared_dir()
    if shared is not None:
        return shared / "datasets" / "coco-val-80" / "images"
    folder = stage.scratch / "photographs"
    if not folder.exists():
        folder.mkdir()
        for seed in range(80):
            (folder / f"{seed:02d}.jpg").write_bytes(encode(photograph(seed, 640, 480), "JPEG"))
    return folder


def ground_truth() -> Path | None:
    """What is in the photographs, in COCO's format; None for drawn ones."""
    shared = shared_dir()
    return shared / "datasets" / "coco-val-80" / "annotations.json" if shared else None


def run_side(module: str, task: Mapping[str, Any], scratch: Path) -> dict[str, Any]:
    """Run `tests.benchmarks.sides.MODULE` and return what it says in its last line."""
    command = [sys.executable, "-m", f"tests.benchmarks.sides.{module}", json.dumps(task)]
    said: dict[str, Any] = json.loads(_run(command, scratch).splitlines()[-1])
    return said


def _export_theirs(checkpoint: Path, folder: Path, form: str) -> Path:
    place = folder / form
    kept = place / "path.txt"
    if not kept.exists():
        place.mkdir()
        copy = Path(shutil.copy(checkpoint, place / "yolov8n.pt"))
        kept.write_text(_run([sys.executable, "-c", _THEIR_EXPORT, str(copy), form], folder).splitlines()[-1])
    return Path(kept.read_text())


def _quantise(stage: Backstage, onnx: Path) -> None:
    """The int8 sibling, calibrated on other pictures than those that are timed and scored."""
    others = _calibration(stage)
    try:
        stage.say(_run([sys.executable, "-c", _INT8, str(onnx), str(others)], onnx.parent).splitlines()[-1])
    except RuntimeError as error:
        stage.say(f"no int8: {error}")


def _calibration(stage: Backstage) -> Path:
    folder, shared = stage.scratch / "calibration", shared_dir()
    folder.mkdir()
    if shared is None:
        for seed in range(1_000, 1_020):
            (folder / f"{seed}.jpg").write_bytes(encode(photograph(seed, 640, 480), "JPEG"))
        return folder
    for path in sorted((shared / "datasets" / "codes-real" / "images").iterdir())[::4]:
        (folder / path.name).symlink_to(path)
    return folder


def _run(command: list[str], scratch: Path) -> str:
    # For whoever imports Ultralytics: its settings in the scratch folder, nothing installed, nothing fetched.
    confined = {"YOLO_CONFIG_DIR": str(scratch), "YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
    environment = {**os.environ, **confined}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_LIMIT_S, env=environment
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[2][:80]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
