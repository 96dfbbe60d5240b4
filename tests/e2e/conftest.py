"""What the end-to-end tests share: pictures, and workers over the shared Kafka."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from schemas.connection import KafkaConnection
from schemas.topics import Topics
from tests.support.pipeline import WorkerProcess, pictures, worker_process

MakeWorker = Callable[..., WorkerProcess]


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Small photographs in the one directory that workers may read."""
    return pictures(tmp_path / "photos")


@pytest.fixture
def make_worker(connection: KafkaConnection, topics: Topics, group: str, tmp_path: Path) -> Iterator[MakeWorker]:
    """Workers of one group over this test's topics; what still runs at the end is killed. Their log is shown if the test fails."""
    log = tmp_path / "workers.log"
    settings = {"IMAGES_ROOTS": str(tmp_path / "photos")}
    with ExitStack() as stack:
        yield lambda **more: stack.enter_context(worker_process(connection, topics, group, log, settings | more))
    print(log.read_text() if log.exists() else "no worker was started")
