"""Images a second of the detector that ships, on pictures of a megapixel; decoding alone and inference alone beside it, which bound it."""

import statistics
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detectors.training.scenes import ScenePolicy, draw_scene
from tests.benchmarks.engine_course import run_side
from tests.benchmarks.races import in_turn
from tests.benchmarks.report import Section, Target
from tests.benchmarks.stage import Backstage

ROUNDS = 3
WANTED = 80
# So many pictures, so many times each: a round is not over at once.
PICTURES, REPEATS = 32, 8
_SIDE, _PIXELS = 1184, 1_000_000
_WAYS = {"stream": "from file to boxes", "load": "decoding alone", "infer": "inference alone"}


def run(stage: Backstage) -> Section:
    """The engine as a worker drives it and its two halves in turn, each a process of its own."""
    paths = _draw(stage.scratch / "scenes")
    task = {"spec": {"path": stage.model, "device": "cpu"}, "cache": str(stage.scratch / "engine"), "paths": paths}
    rates: dict[str, list[float]] = {way: [] for way in _WAYS}
    spent_ms: dict[str, list[float]] = {way: [] for way in _WAYS}
    said: dict[str, Any] = {}
    for number in range(ROUNDS):
        for way in in_turn(_WAYS, number):
            said = run_side("engine", {**task, "way": way, "repeats": REPEATS}, stage.scratch)
            rates[way].append(PICTURES * REPEATS / said["seconds"])
            spent_ms[way].append(said["cpu_s"] / (PICTURES * REPEATS) * 1e3)
            stage.say(f"round {number + 1}: {_WAYS[way]} {rates[way][-1]:.1f} images/s")
    size_kb = sum(Path(path).stat().st_size for path in paths) // len(paths) // 1000
    return Section(
        name="engine-codes",
        title="Images a second of the detector that ships",
        how=(
            f"`{Path(stage.model).name}` on {said['backend']} in {said['precision']}, {PICTURES} drawn scenes of one megapixel each as "
            f"JPEG, {size_kb} kB on average, {REPEATS} times. From file to boxes as a worker does it, without Kafka and without the cache "
            "of results; decoding alone is the loader with its processes, inference alone gets pictures decoded before, letterbox and "
            f"suppression included. {ROUNDS} rounds in turn, medians; processor time is that of all threads and of the decoders. Loading "
            "and warming up are left out."
        ),
        columns=("what", "images/s", "processor ms an image", "rounds"),
        rows=[
            (
                name,
                f"{statistics.median(rates[way]):.1f}",
                f"{statistics.median(spent_ms[way]):.1f}",
                " / ".join(f"{rate:.1f}" for rate in rates[way]),
            )
            for way, name in _WAYS.items()
        ],
        targets=[
            Target(
                what="images/s from file to boxes on this machine's cores",
                measured=statistics.median(rates["stream"]),
                wanted=WANTED,
            )
        ],
        figures={"rates": rates, "spent_ms": spent_ms},
    )


def _draw(folder: Path) -> list[str]:
    """Scenes as the model's own test set has them, each scaled to a megapixel."""
    folder.mkdir(exist_ok=True)
    for number in range(PICTURES):
        scene = draw_scene((11, number), ScenePolicy(size=_SIDE))
        pixels = cv2.imdecode(np.frombuffer(scene.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        gain = (_PIXELS / (scene.width * scene.height)) ** 0.5
        large = cv2.resize(
            pixels, None, fx=gain, fy=gain, interpolation=cv2.INTER_AREA if gain < 1 else cv2.INTER_LINEAR
        )
        cv2.imwrite(str(folder / f"{number:03d}.jpg"), large, (cv2.IMWRITE_JPEG_QUALITY, 90))
    return [str(path) for path in sorted(folder.iterdir())]
