"""The backend alone: references in a list, decoded and detected as fast as the machine can, no Kafka and no pipeline."""

import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detectors.base import Image
from detectors.images import ImageLoader, ImageRequest
from detectors.policy import ImagePolicy
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from schemas.records import DetectParameters

_BATCH = 32


async def main() -> None:
    """Decoding of the next batch overlaps the inference of this one, as in the worker."""
    task = json.loads(sys.argv[1])
    detector = open_detector(ModelSpec(path=task["model"]))
    requests = [ImageRequest(uri) for uri in task["uris"]]
    slots, devices = asyncio.Semaphore(detector.concurrency + 1), ThreadPoolExecutor(detector.concurrency)

    async def carry(batch: list[ImageRequest]) -> None:
        async with slots:
            images = [image for image in await loader.load(batch) if isinstance(image, Image)]
            wanted = [DetectParameters()] * len(images)
            await asyncio.get_running_loop().run_in_executor(devices, detector.detect, images, wanted)

    async with ImageLoader(ImagePolicy(roots=(Path(task["images"]),))) as loader:
        began = time.perf_counter()
        await asyncio.gather(*(carry(requests[at : at + _BATCH]) for at in range(0, len(requests), _BATCH)))
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
