"""The network alone on a CUDA device: planes that lie there already, no decoding, no boxes. What the engine's share is a share of."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from detectors.registry import open_detector
from detectors.spec import ModelSpec

_SECONDS = 2.0
# Most photographs' canvas, where canvases are not all whole.
_LANDSCAPE = (640, 480)


def main() -> None:
    """Images a second by batch size, best first call to last result."""
    task = json.loads(sys.argv[1])
    detector: Any = open_detector(ModelSpec(**task["spec"]), Path(task["cache"]))
    engine = detector._detector
    place, shapes = engine._placement, engine._shapes
    width, height = shapes.canvas if shapes.stride is None else _LANDSCAPE
    said = {}
    for size in [size for size in shapes.buckets.sizes if size <= detector.max_batch]:
        planes = torch.rand((size, 3, height, width), device=place.device, dtype=place.dtype)
        planes = planes.contiguous(memory_format=torch.channels_last)
        said[size] = _rate(engine._network, planes)
    print(json.dumps({"images_per_s": said}), flush=True)


def _rate(network: Any, planes: Any) -> float:
    with torch.inference_mode():
        for _ in range(10):
            network(planes)
        torch.cuda.synchronize()
        began, calls = time.perf_counter(), 0
        while time.perf_counter() - began < _SECONDS:
            for _ in range(10):
                network(planes)
            torch.cuda.synchronize()
            calls += 10
    return calls * len(planes) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
