"""Results on a real topic, and the sink that takes them off it, as a thread of this process or as a process of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.topics import Topics
from sinks.base import Sink
from streams.deliver import Delivery, DeliveryPolicy
from streams.membership import MembershipPolicy
from tests.support.data import ROOT
from tests.support.results import BROKEN, CODEC, result


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 30.0, pause_s: float = 0.02) -> None:
    """Wait until a condition holds; fails when the time is over."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        pause.wait(pause_s)


def put(publisher: Publisher, values: Sequence[bytes | None], keys: int = 16) -> None:
    """Put values on the topic of results, spread over its partitions, and wait until they are there."""
    problems: list[Any] = []
    for at, value in enumerate(values):
        publisher.send(
            publisher.topics.detections,
            f"camera-{at % keys}".encode(),
            value,
            lambda error, _: problems.append(error) if error else None,
        )
    publisher.flush(30)
    assert not problems


def mixed(count: int) -> list[bytes | None]:
    """`count` results, some of them twice, with tombstones and unreadable records among them. Equal keys for equal ids."""
    values: list[bytes | None] = [CODEC.encode(result()) for _ in range(count)]
    again = [values[at] for at in range(0, count, 16)]  # put() gives each of these the key it had
    values += [value for one in again for value in (one, *[CODEC.encode(result()) for _ in range(15)])]
    values[5:5] = [None] * 16
    values[40:40] = [BROKEN] * 16
    return values


class Running:
    """A delivery on a thread; leaving the block stops it, and fails if it died."""

    def __init__(
        self, connection: KafkaConnection, publisher: Publisher, sink: Sink, group: str, **policy: Any
    ) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None
        membership = {name: policy.pop(name) for name in ("instance_id", "protocol") if name in policy}
        self.delivery = Delivery(
            connection,
            publisher,
            sink,
            DeliveryPolicy(stage="parquet", **{"poll_s": 0.05, "tick_s": 0.1, **policy}),
            MembershipPolicy(group=group, **membership),
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.delivery.run(self.stop)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        if self.error is not None and kind is None:
            raise self.error

    def end(self) -> None:
        """Stop as SIGTERM would, and wait until it has."""
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@contextmanager
def sink_process(
    connection: KafkaConnection,
    topics: Topics,
    lake: Path,
    settings: Mapping[str, str],
    log: Path = Path(os.devnull),
) -> Iterator["subprocess.Popen[bytes]"]:
    """`sightstream sink parquet` as a process that writes to `log`; killed at the end if it still runs."""
    with command_process(["sink", "parquet", "--dir", str(lake)], connection, topics, settings, log) as process:
        yield process


@contextmanager
def command_process(
    command: Sequence[str],
    connection: KafkaConnection,
    topics: Topics,
    settings: Mapping[str, str],
    log: Path = Path(os.devnull),
) -> Iterator["subprocess.Popen[bytes]"]:
    """A command of `sightstream` as a process that writes to `log`; killed at the end if it still runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTSTREAM_")}
    given = {"KAFKA_BOOTSTRAP": connection.bootstrap, "KAFKA_PREFIX": topics.prefix, **settings}
    with log.open("ab") as said:  # a pipe that nobody reads would hold the process up once it is full
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.cli", *command],
            cwd=ROOT,
            env=environment | {f"SIGHTSTREAM_{name}": value for name, value in given.items()},
            stderr=said,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
