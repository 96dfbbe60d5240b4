"""The engine as the worker drives it: the real loader and its decoders, so many calls at once as the detector asks for, no Kafka."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from detectors.base import Detector, Image
from detectors.images import ImageLoader, ImageRequest
from detectors.policy import ImagePolicy
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.records import DetectParameters
from tests.benchmarks.sides.effort import effort

# Batches that are loaded ahead of those in inference, as the worker does.
_AHEAD = 2
# Calls of each size, as a 99th percentile of fewer says nothing, and the images that they are made of.
_CALLS, _POOL = 36, 32
# Before the clock starts: canvases that come often get graphs of their own when they have come often.
_WARM_S = 15.0
# How many images the watch over memory draws in all, and how many between two looks.
_DRAWN, _SAMPLED = 20_000, 500


async def main() -> None:
    """What the task says: `stream` all, `load` or `infer` alone, one image `alone` after the other, calls of several `sizes`, `memory`."""
    task = json.loads(sys.argv[1])
    detector = open_detector(ModelSpec(**task["spec"]), Path(task["cache"]) if "cache" in task else None)
    policy = ImagePolicy(roots=(Path(task["paths"][0]).parent,), decode_on=task.get("decode_on", "host"))
    requests = [ImageRequest(Path(path).as_uri()) for path in task["paths"]] * task.get("repeats", 1)
    async with ImageLoader(policy, detector.model.canvas) as loader:
        await _images(loader, requests[:2])
        said = await _WAYS[task["way"]](detector, loader, requests)
    model = detector.model
    print(json.dumps({**said, "backend": model.backend, "precision": model.precision}), flush=True)
    detector.close()


async def _stream(detector: Detector, loader: ImageLoader, requests: list[ImageRequest]) -> dict[str, Any]:
    """What it takes from the first reference to the last box."""
    ends = time.perf_counter() + _WARM_S
    while time.perf_counter() < ends:
        async for _ in _infer_all(detector, loader, requests):
            pass
    with effort() as said:
        boxes = sum([found async for found in _infer_all(detector, loader, requests)])
    return {**said, "boxes": boxes}


async def _load(detector: Detector, loader: ImageLoader, requests: list[ImageRequest]) -> dict[str, Any]:
    """What decoding takes while nothing else runs."""
    with effort() as said:
        for start in range(0, len(requests), detector.max_batch):
            await _images(loader, requests[start : start + detector.max_batch])
    return said


async def _infer(detector: Detector, loader: ImageLoader, requests: list[ImageRequest]) -> dict[str, Any]:
    """What inference takes, letterbox and boxes included, while nothing else runs; images are decoded before."""
    images, size = await _images(loader, requests[:_POOL]), detector.max_batch
    batches = [(images * 2)[at % len(images) :][:size] for at in range(0, len(requests), size)]
    ends = time.perf_counter() + _WARM_S
    with ThreadPoolExecutor(detector.concurrency) as pool:
        while time.perf_counter() < ends:
            list(pool.map(lambda batch: _detect(detector, batch), batches))
        with effort() as said:
            list(pool.map(lambda batch: _detect(detector, batch), batches))
    return {**said, "images": sum(map(len, batches))}


async def _infer_all(detector: Detector, loader: ImageLoader, requests: Sequence[ImageRequest]) -> Any:
    """The number of boxes of each batch, as batches are done."""
    size = detector.max_batch
    chunks = [requests[start : start + size] for start in range(0, len(requests), size)]
    loop, loading, running = asyncio.get_running_loop(), asyncio.Queue[list[Image] | None](_AHEAD), set[Any]()

    async def load() -> None:
        for chunk in chunks:
            await loading.put(await _images(loader, chunk))
        await loading.put(None)

    task = asyncio.create_task(load())
    with ThreadPoolExecutor(detector.concurrency) as pool:
        while (images := await loading.get()) is not None:
            if len(running) == detector.concurrency:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    yield future.result()
            running.add(loop.run_in_executor(pool, _detect, detector, images))
        for future in running:
            yield await future
    await task


async def _alone(detector: Detector, loader: ImageLoader, requests: list[ImageRequest]) -> dict[str, Any]:
    """Milliseconds from a reference to its boxes, one image at a time, in a machine that does nothing else."""
    loop, times = asyncio.get_running_loop(), list[float]()
    with ThreadPoolExecutor(1) as pool:

        async def one(request: ImageRequest) -> None:
            began = time.perf_counter()
            await loop.run_in_executor(pool, _detect, detector, await _images(loader, [request]))
            times.append((time.perf_counter() - began) * 1e3)

        ends = time.perf_counter() + _WARM_S
        while len(times) < len(requests) or time.perf_counter() < ends:
            await one(requests[len(times) % len(requests)])
        times.clear()
        for request in requests:
            await one(request)
    return {"ms": times}


async def _sizes(detector: Detector, loader: ImageLoader, requests: list[ImageRequest]) -> dict[str, Any]:
    """Images a second and milliseconds of a call by its size; images are decoded before."""
    images = await _images(loader, requests[:_POOL])
    said = {}
    for size in [size for size in (1, 2, 4, 8, 16, 32) if size <= detector.max_batch]:
        batches = [[images[(number * size + at) % len(images)] for at in range(size)] for number in range(_CALLS)]
        times: list[float] = []

        def call(batch: list[Image], times: list[float] = times) -> None:
            began = time.perf_counter()
            _detect(detector, batch)
            times.append((time.perf_counter() - began) * 1e3)

        with ThreadPoolExecutor(detector.concurrency) as pool:
            ends = time.perf_counter() + _WARM_S / 3
            while len(times) < max(_POOL // size, detector.concurrency) or time.perf_counter() < ends:
                list(pool.map(call, batches[: max(_POOL // size, detector.concurrency)]))  # every shape, and often
            times.clear()
            began = time.perf_counter()
            list(pool.map(call, batches))
            seconds = time.perf_counter() - began
        said[size] = {"images_per_s": len(batches) * size / seconds, "ms": times, "device_mib": _device_mib()}
    return {"sizes": said}


async def _memory(detector: Detector, loader: ImageLoader, requests: list[ImageRequest]) -> dict[str, Any]:
    """Resident MiB of this process and its decoders, by images done: files drawn in no order."""
    me, samples, rng = psutil.Process(), list[tuple[int, float]](), np.random.default_rng(0)
    for done in range(_SAMPLED, _DRAWN + 1, _SAMPLED):
        drawn = [requests[at] for at in rng.integers(0, len(requests), _SAMPLED)]
        async for _ in _infer_all(detector, loader, drawn):
            pass
        resident = sum(process.memory_info().rss for process in (me, *me.children(recursive=True)))
        samples.append((done, resident / 2**20))
    return {"samples": samples}


async def _images(loader: ImageLoader, requests: Sequence[ImageRequest]) -> list[Image]:
    outcomes = await loader.load(requests)
    assert all(isinstance(outcome, Image) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, Image)]


def _detect(detector: Detector, images: Sequence[Image]) -> int:
    return int(detector.detect(images, [DetectParameters()] * len(images)).offsets[-1])


def _device_mib() -> float | None:
    """Memory in use on the CUDA device, whoever uses it; None where there is no torch that runs on one."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return float(np.round((total - free) / 2**20, 1))


_WAYS = {"stream": _stream, "load": _load, "infer": _infer, "alone": _alone, "sizes": _sizes, "memory": _memory}

if __name__ == "__main__":
    asyncio.run(main())
