"""The whole system as a user starts it: gateway, store and worker, each a process that may be killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from schemas.connection import KafkaConnection
from schemas.topics import Topics
from tests.support.data import ROOT

_READY_S = 60.0


@dataclass(slots=True)
class Part:
    """One process. `settings` are those of its environment, without prefix."""

    arguments: Sequence[str]
    settings: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it; returns at once."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTSTREAM_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.cli", *self.arguments],
                cwd=ROOT,
                env=inherited | {f"SIGHTSTREAM_{name}": value for name, value in self.settings.items()},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals, timeout_s: float = 60.0) -> int:
        """Signal it if it still runs, and wait for its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None


@dataclass(slots=True)
class System:
    """Gateway, store and worker over one Kafka. `url` stays the same when the gateway is started again."""

    url: str
    gateway: Part
    store: Part
    worker: Part
    log: Path

    @property
    def parts(self) -> dict[str, Part]:
        """By name."""
        return {"gateway": self.gateway, "store": self.store, "worker": self.worker}

    def start(self) -> None:
        """Start everything, and wait until the gateway takes images."""
        for part in self.parts.values():
            part.start()
        self.await_ready()

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """While the block runs, a part that ended is started again at once, whoever ended it."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                for part in self.parts.values():
                    if not part.running:
                        part.start()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def check_running(self) -> None:
        """Raise AssertionError where a part ended by itself."""
        for name, part in self.parts.items():
            assert part.running, f"{name} ended:\n{self.log.read_text()[-4000:]}"

    def create_key(self, *scopes: str) -> str:
        """A new API key, by the command that operators have."""
        wanted = [word for scope in scopes for word in ("--scope", scope)]
        environment = {f"SIGHTSTREAM_{name}": value for name, value in self.gateway.settings.items()}
        command = [sys.executable, "-m", "infra.cli", "keys", "create", *wanted]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def await_ready(self, timeout_s: float = _READY_S) -> None:
        """Wait until the gateway says that it is ready. Raises AssertionError."""
        deadline, said = time.monotonic() + timeout_s, ""
        while time.monotonic() < deadline:
            self.check_running()
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    return
            except OSError as error:
                said = error.read().decode() if isinstance(error, urllib.error.HTTPError) else str(error)
                time.sleep(0.05)
        raise AssertionError(f"the gateway is not ready: {said}\n{self.log.read_text()[-4000:]}")


@contextmanager
def system(
    connection: KafkaConnection,
    topics: Topics,
    folder: Path,
    settings: Mapping[str, str] | None = None,
) -> Iterator[System]:
    """A system that is not started yet; what still runs at the end is killed. `folder` holds uploads, database and log."""
    uploads, log = folder / "uploads", folder / "system.log"
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    common = {
        "KAFKA_BOOTSTRAP": connection.bootstrap,
        "KAFKA_PREFIX": topics.prefix,
        "KAFKA_GROUP": f"{topics.prefix}workers",
        "KAFKA_INSTANCE_ID": "slot-0",  # who is killed is replaced at once
        "MODEL_PATH": "fake",
        "IMAGES_ROOTS": str(uploads),
        "UPLOADS_URL": str(uploads),
        "UPLOADS_SECRET": "the same in every start",
        "STORE_DATABASE_URL": f"sqlite:///{folder / 'store.db'}",
        "STATE_DIR": str(folder),
        "LOG_FORMAT": "json",
        **(settings or {}),
    }
    made = System(
        url=f"http://127.0.0.1:{port}",
        gateway=Part(["gateway", "--port", str(port)], common, log),
        store=Part(["sink", "store"], common, log),
        worker=Part(["worker", "--port", "0"], common, log),
        log=log,
    )
    try:
        yield made
    finally:
        for part in made.parts.values():
            if part.running:
                part.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
