"""The network alone on a CUDA device: planes that lie there already, no decoding, no boxes. What the engine's share is a share of."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from detectors.registry import open_detector
from detectors.spec import ModelSpec

_SECONDS, _HEIGHT, _WIDTH = 2.0, 480, 640


def main() -> None:
    """Images a second by batch size, best first call to last result."""
    task = json.loads(sys.argv[1])
    detector: Any = open_detector(ModelSpec(**task["spec"]), Path(task["cache"]))
    engine = detector._detector
    said = {}
    for size in [size for size in (1, 2, 4, 8, 16, 32) if size <= detector.max_batch]:
        place = engine._placement
        planes = torch.rand((size, 3, _HEIGHT, _WIDTH), device=place.device, dtype=place.dtype)
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
