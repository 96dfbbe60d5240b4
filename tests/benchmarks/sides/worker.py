"""The worker as a process of its own, with the parts of `sightstream worker`; the images may be blank."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np

from detectors.base import Detector, Image
from detectors.images import ImageLoader, ImageRequest
from detectors.policy import ImagePolicy
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from producers.publisher import Publisher
from schemas.codec import Codec, PackagedSchemas
from schemas.connection import KafkaConnection
from schemas.records import DetectParameters
from schemas.topics import Topics
from streams.app import WorkerPolicy
from streams.detect import Images
from streams.sizing import Batching
from streams.worker import Worker, WorkerParts
from tests.benchmarks.sides.task import Task, announce_first

# As many photographs as the bare side warms up on.
WARM = 16


class BlankImages:
    """Every reference is one pixel: what is measured is everything but the pictures."""

    def __init__(self) -> None:
        self._image = Image(np.zeros((1, 1, 3), np.uint8))

    async def load(self, requests: Sequence[ImageRequest]) -> Sequence[Image]:
        return [self._image] * len(requests)


async def main() -> None:
    task = Task.read()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncExitStack() as stack:
        connection = KafkaConnection(bootstrap=task.bootstrap)
        publisher = stack.enter_context(
            Publisher(connection, Codec(PackagedSchemas()), Topics(task.worker.get("prefix", "")))
        )
        detector = open_detector(ModelSpec(path=task.worker["model"], precision="f32"))
        images: Images = BlankImages()
        if "images" in task.worker:
            policy = ImagePolicy(roots=(Path(task.worker["images"]),))
            loader = await stack.enter_async_context(ImageLoader(policy, detector.model.canvas))
            await _warm(detector, loader, Path(task.worker["images"]))
            images = loader
        parts = WorkerParts(
            connection=connection,
            publisher=publisher,
            detector=detector,
            images=images,
            group=task.group,
            worker=WorkerPolicy(commit_interval_s=task.commit_interval_s),
            batching=Batching(**task.worker.get("batching", {})),
        )
        worker = Worker(parts)
        _announce_first(worker)
        await worker.run(stop)


async def _warm(detector: Detector, loader: ImageLoader, folder: Path) -> None:
    """Every shape once before the clock starts, as the bare side does: kernels are made for each when it first comes."""
    loaded = await loader.load(_first_photographs(folder))
    images = [image for image in loaded if isinstance(image, Image)]
    for start in range(0, len(images), detector.max_batch):
        batch = images[start : start + detector.max_batch]
        await asyncio.to_thread(detector.detect, batch, [DetectParameters()] * len(batch))


def _first_photographs(folder: Path) -> list[ImageRequest]:
    return [ImageRequest(path.as_uri()) for path in sorted(folder.iterdir())[:WARM]]


def _announce_first(worker: Worker) -> None:
    accept = worker.intake.accept

    def first(tp: Any, records: Sequence[Any]) -> None:
        announce_first()
        worker.intake.accept = accept  # type: ignore[method-assign]
        accept(tp, records)

    worker.intake.accept = first  # type: ignore[method-assign]


if __name__ == "__main__":
    asyncio.run(main())
