"""What the gateway's benchmarks race over: this system and a plain one on the same model, and clients that upload."""

import json
import select
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from detectors.export_checkpoint import export_checkpoint
from schemas.topics import Topics
from tests.benchmarks.engine_course import run_side
from tests.benchmarks.stage import Stage
from tests.support.data import ROOT
from tests.support.kafka import create_topics
from tests.support.models import coco_checkpoint, write_tiny_yolo
from tests.support.system import system

_START_S = 120.0


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway that runs: where it is, and its processes by what they do."""

    url: str
    pids: Mapping[str, int]

    def resident_mib(self) -> dict[str, float]:
        """Memory of each with its children, now."""
        return {name: _resident_mib(psutil.Process(pid)) for name, pid in self.pids.items()}


@dataclass(frozen=True, slots=True)
class Model:
    """One network in the two forms that the sides want."""

    name: str
    ours: Path
    theirs: Path


def make_model(stage: Stage) -> Model:
    """YOLOv8n of COCO; a tiny network of the same interface where the shared data is not."""
    folder, checkpoint = stage.scratch / "gateway-model", coco_checkpoint()
    folder.mkdir(exist_ok=True)
    if checkpoint is None:
        tiny = write_tiny_yolo(folder / "tiny.onnx")
        return Model("a tiny network with a YOLOv8 head (no shared data here)", tiny, tiny)
    return Model("YOLOv8n of COCO at 640 pixels", export_checkpoint(checkpoint, folder), checkpoint)


@contextmanager
def this_system(stage: Stage, model: Model) -> Iterator[Served]:
    """Gateway, store and worker, each a process, with their defaults, on topics of their own."""
    topics = Topics(f"gateway-{uuid.uuid4().hex[:6]}.")
    create_topics(stage.connection, topics)
    settings = {"MODEL_PATH": str(model.ours), "LOG_LEVEL": "warning"}
    with system(stage.connection, topics, stage.scratch / topics.prefix, settings) as running:
        running.start()
        pids = {name: part.process.pid for name, part in running.parts.items() if part.process}
        yield Served(running.url, pids)


@contextmanager
def plain_gateway(stage: Stage, model: Model) -> Iterator[Served]:
    """FastAPI, a queue and a dictionary in memory, one thread that predicts."""
    command = [sys.executable, "-m", "tests.benchmarks.sides.plain_gateway", json.dumps({"model": str(model.theirs)})]
    log = stage.scratch / "plain_gateway.log"
    with log.open("ab") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=said)
    try:
        yield Served(_url(process, log), {"all": process.pid})
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def upload(served: Served, way: str, images: Path, stage: Stage, **task: Any) -> dict[str, Any]:
    """Clients in a process of their own, see `sides.uploaders`."""
    return run_side("uploaders", {"url": served.url, "way": way, "images": str(images), **task}, stage.scratch)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share does not exceed; no number where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def _url(process: "subprocess.Popen[bytes]", log: Path) -> str:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], _START_S)[0] or not (line := process.stdout.readline()):
        raise RuntimeError(f"the plain gateway did not start: {log.read_text()[-2000:]}")
    said: dict[str, str] = json.loads(line)
    return said["url"]


def _resident_mib(process: psutil.Process) -> float:
    resident: int = sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
    return resident / 2**20
