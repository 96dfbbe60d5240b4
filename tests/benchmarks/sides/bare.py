"""OpenVINO alone, as an expert would drive it: an asynchronous queue, photographs decoded by threads meanwhile, no Kafka."""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from detectors.boxes import Found, Letterbox, Thresholds, read_yolo
from detectors.decode import decode
from detectors.openvino_library import ov
from detectors.spec import ModelSpec
from schemas.records import DetectParameters
from tests.benchmarks.sides.effort import effort

Pixels = np.typing.NDArray[np.uint8]

_CANVAS, _STRIDE, _AHEAD, _DECODERS = (640, 640), 32, 16, 2
# Photographs before the clock starts: kernels are made for each shape when it first comes.
_WARM = 16
_THRESHOLDS = Thresholds.of(DetectParameters(), ModelSpec(path="bare"))


def main() -> None:
    """Every photograph through the model, as fast as the machine can; or one after the other."""
    task = json.loads(sys.argv[1])
    if task.get("alone"):
        print(json.dumps({"ms": _alone(task)}), flush=True)
        return
    queue, found = _queue(task["model"], task.get("precision", "f32")), list[Found]()
    queue.set_callback(
        lambda request, box: found.append(read_yolo(request.get_output_tensor(0).data[0], _THRESHOLDS, box[0]))
    )
    paths = [Path(unquote(urlsplit(uri).path)) for uri in task["uris"]]
    with ThreadPoolExecutor(_DECODERS) as pool:
        _run(queue, pool, paths[:_WARM])
        found.clear()
        with effort() as said:
            _run(queue, pool, paths)
    assert len(found) == len(paths)
    print(json.dumps(said), flush=True)


def _run(queue: Any, pool: ThreadPoolExecutor, paths: list[Path]) -> None:
    for letterbox, pixels in _decoded(pool, paths):
        queue.start_async({0: ov.Tensor(pixels[np.newaxis], shared_memory=True)}, (letterbox, pixels))
    queue.wait_all()


def _alone(task: dict[str, Any]) -> list[float]:
    """Milliseconds of decoding and of the backend's own call, all cores on one image; the letterbox between them is not counted."""
    request = _compile(task["model"], task["precision"], "LATENCY").create_infer_request()
    paths = [Path(unquote(urlsplit(uri).path)) for uri in task["uris"]]
    times: list[float] = []
    for path in (*paths, *paths):  # the first time round warms up every shape
        began = time.perf_counter()
        pixels = decode(path.read_bytes(), 50_000_000)
        decoded = time.perf_counter()
        canvas = Letterbox.fit((pixels.shape[1], pixels.shape[0]), _CANVAS, _STRIDE).apply(pixels)
        called = time.perf_counter()
        request.infer({0: ov.Tensor(canvas[np.newaxis], shared_memory=True)})
        times.append((time.perf_counter() - called + decoded - began) * 1e3)
    return times[len(paths) :]


def _queue(model: str, precision: str) -> Any:
    compiled = _compile(model, precision, "THROUGHPUT")
    queue = ov.AsyncInferQueue(compiled, int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) + 2)
    for request in queue:
        request.infer({0: np.zeros((1, *_CANVAS, 3), np.uint8)})
    return queue


def _compile(model: str, precision: str, hint: str) -> Any:
    core = ov.Core()
    steps = ov.preprocess.PrePostProcessor(core.read_model(model))
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    return core.compile_model(steps.build(), "CPU", {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": precision})


def _decoded(pool: ThreadPoolExecutor, paths: list[Path]) -> Iterator[tuple[Letterbox, Pixels]]:
    """Letterboxed photographs, in order, some of them ahead."""
    left = iter(paths)
    ahead: list[Future[tuple[Letterbox, Pixels]]] = [pool.submit(_read, path) for path in islice(left, _AHEAD)]
    while ahead:
        ready = ahead.pop(0).result()
        ahead += [pool.submit(_read, path) for path in islice(left, 1)]
        yield ready


def _read(path: Path) -> tuple[Letterbox, Pixels]:
    pixels = decode(path.read_bytes(), 50_000_000)
    letterbox = Letterbox.fit((pixels.shape[1], pixels.shape[0]), _CANVAS, _STRIDE)
    return letterbox, letterbox.apply(pixels)


if __name__ == "__main__":
    main()
