"""A schema registry on this machine: Apicurio, in memory, with the API that Confluent's clients speak."""

import http.client
import json
import logging
import shutil
import signal
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path

from infra.broker.artifacts import DEFAULT_CACHE, ArtifactCache, java, locked
from infra.broker.locks import exclusive
from infra.broker.ports import HOST, free_ports, is_free
from infra.broker.processes import Process, log_tail, spawn, stop_all
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)

_READY_S = 90.0
_JAR = "quarkus-run.jar"


class LocalRegistry:
    """The registry whose state file lies in `directory`. Its schemas are gone when it ends: producers register them again.

    `port` None takes a free one, and keeps it over restarts. Methods raise ConfigurationError where the operator can help.
    """

    def __init__(self, directory: Path, *, port: int | None = None, cache: Path = DEFAULT_CACHE) -> None:
        self.directory = directory.expanduser().absolute()
        self._port = port
        self._cache = ArtifactCache(cache)

    @property
    def url(self) -> str:
        """Where Confluent's clients find it."""
        return f"http://{HOST}:{self._stored_port()}/apis/ccompat/v7"

    def running(self) -> int | None:
        """The pid, or None if it does not run."""
        process = self._process()
        return process.pid if process and process.alive() else None

    def start(self) -> None:
        """Start it unless it runs; returns when it is ready (some 7 s, the first time plus the download)."""
        with exclusive(self.directory / ".registry.lock"):
            if self.running() is not None:
                return
            port = self._port or self._stored_port() or free_ports(1)[0]
            if not is_free(port):
                raise ConfigurationError(f"port {port} of {HOST} is in use: stop what listens there, or choose another")
            process, management = self._launch(port)
            try:
                self._await_ready(process, management)
            except BaseException:
                process.kill()
                raise

    def stop(self, grace_s: float = 10.0) -> None:
        """End it; stopping twice is fine."""
        with exclusive(self.directory / ".registry.lock"):
            if process := self._process():
                stop_all([process], grace_s)

    def kill(self) -> None:
        """SIGKILL it; `start` brings it back, empty."""
        if process := self._process():
            process.kill()

    def pause(self) -> None:
        """SIGSTOP it: it accepts connections and never answers. `resume` it in a `finally`."""
        if process := self._process():
            process.pause()

    def resume(self) -> None:
        """SIGCONT it."""
        if process := self._process():
            process.send(signal.SIGCONT)

    def _launch(self, port: int) -> tuple[Process, int]:
        (archive,) = self._cache.fetch(locked("registry"))
        jar = _unpacked(archive) / _JAR
        (management,) = free_ports(1)
        options = {
            "java.util.logging.manager": "org.jboss.logmanager.LogManager",
            "quarkus.http.host": HOST,
            "quarkus.http.port": str(port),
            "quarkus.management.host": HOST,
            "quarkus.management.port": str(management),
        }
        words = [str(java()), "-Xmx384m", *(f"-D{key}={value}" for key, value in options.items()), "-jar", str(jar)]
        process = spawn(words, self._log)
        self._state.write_text(json.dumps({"port": port, "pid": process.pid, "born": process.born}) + "\n", "utf-8")
        return process, management

    def _await_ready(self, process: Process, management: int) -> None:
        deadline = time.monotonic() + _READY_S
        while not _ready(management):
            if not process.alive() or time.monotonic() > deadline:
                what = f"did not answer within {_READY_S:.0f} s" if process.alive() else "ended at start"
                raise ConfigurationError(f"the schema registry {what}:\n{log_tail(self._log)}")
            time.sleep(0.1)

    @property
    def _log(self) -> Path:
        return self.directory / "registry.log"

    @property
    def _state(self) -> Path:
        return self.directory / "registry.json"

    def _stored(self) -> dict[str, int | str]:
        stored: dict[str, int | str] = json.loads(self._state.read_text("utf-8")) if self._state.exists() else {}
        return stored

    def _stored_port(self) -> int:
        return int(self._stored().get("port", 0))

    def _process(self) -> Process | None:
        stored = self._stored()
        return Process(int(stored["pid"]), str(stored["born"])) if stored else None


def _unpacked(archive: Path) -> Path:
    """The archive's files, beside it; unpacked once, in one step."""
    target = archive.with_name("unpacked")
    with exclusive(archive.with_name(".lock")):
        if not target.exists():
            part = Path(tempfile.mkdtemp(prefix=".part-", dir=archive.parent))
            try:
                with tarfile.open(archive) as tar:
                    tar.extractall(part, filter="data")
                part.replace(target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return target


def _ready(port: int) -> bool:
    with closing(http.client.HTTPConnection(HOST, port, timeout=2)) as connection:
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
