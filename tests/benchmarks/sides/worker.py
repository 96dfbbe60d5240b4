"""The worker as a process of its own, with the parts of `sightstream worker`; the images may be blank."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np

from detectors.base import Image
from detectors.images import ImageLoader, ImageRequest
from detectors.policy import ImagePolicy
from detectors.registry import open_detector
from detectors.spec import ModelSpec
from producers.publisher import Publisher
from schemas.codec import Codec, PackagedSchemas
from schemas.connection import KafkaConnection
from schemas.topics import Topics
from streams.app import WorkerPolicy
from streams.detect import Images
from streams.sizing import Batching
from streams.worker import Worker, WorkerParts
from tests.benchmarks.sides.task import Task, announce_first


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
            images = await stack.enter_async_context(ImageLoader(policy, detector.model.canvas))
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


def _announce_first(worker: Worker) -> None:
    accept = worker.intake.accept

    def first(tp: Any, records: Sequence[Any]) -> None:
        announce_first()
        worker.intake.accept = accept  # type: ignore[method-assign]
        accept(tp, records)

    worker.intake.accept = first  # type: ignore[method-assign]


if __name__ == "__main__":
    asyncio.run(main())
