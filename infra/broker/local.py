"""A real Apache Kafka on this machine: KRaft, one node or three, loopback only, data kept between runs."""

import json
import logging
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.broker.artifacts import DEFAULT_CACHE, ArtifactCache, java, locked
from infra.broker.configuration import Node, Security, lay_out, random_id, server_properties
from infra.broker.locks import exclusive
from infra.broker.ports import HOST, answers, free_ports, is_free
from infra.broker.processes import ENVIRONMENT, Process, log_tail, spawn, stop_all
from schemas.errors import ConfigurationError

log = logging.getLogger(__name__)

_READY_S = 120.0
_GRACE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Jvm:
    """How Java runs: `short_lived` halves the processor time of a start and gives up speed in the long run."""

    heap_mb: int = 512
    short_lived: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """For the command line; the last three keep quiet about what Kafka's libraries do."""
        pace = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC") if self.short_lived else ("-XX:+UseG1GC",)
        heap = (f"-Xms{self.heap_mb}m", f"-Xmx{self.heap_mb}m")
        quiet = ("-Dlog4j2.level=WARN", "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow")
        return (*heap, *pace, *quiet)


@dataclass(frozen=True, slots=True)
class _State:
    """What `state.json` holds: the cluster for good, its processes while they run."""

    cluster_id: str
    nodes: tuple[Node, ...]
    processes: Mapping[int, Process] = field(default_factory=dict)


class LocalKafka:
    """The cluster whose data and state file lie in `directory`; any process that knows the directory may handle it.

    `nodes` and `port` are for the first start: None means one node, on free ports. `port` is the first of consecutive ones (each
    node: one per listener, then its controller's). Once made, a cluster keeps its nodes and ports. Every method raises
    ConfigurationError where the operator can help.
    """

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int | None = None,
        port: int | None = None,
        security: Security = Security(),  # noqa: B008 - frozen
        cache: Path = DEFAULT_CACHE,
        jvm: Jvm = Jvm(),
    ) -> None:
        self.directory = directory.expanduser().absolute()
        self._wanted = nodes
        self._port = port
        self._security = security
        self._cache = ArtifactCache(cache)
        self._jvm = jvm

    @property
    def exists(self) -> bool:
        """Whether a cluster was ever made in the directory."""
        return self._read() is not None

    @property
    def bootstrap(self) -> str:
        """Addresses of the first listener, `host:port,host:port`, whether the nodes run or not."""
        return self.addresses(0)

    def addresses(self, listener: int) -> str:
        """Addresses of the listener at that place in `Security.listeners`."""
        return ",".join(f"{HOST}:{node.ports[listener]}" for node in self._state().nodes)

    def running(self) -> dict[int, int]:
        """Node id -> pid of the nodes that run."""
        state = self._read()
        return {} if state is None else {i: p.pid for i, p in state.processes.items() if p.alive()}

    def start(self) -> None:
        """Start the nodes that do not run yet; returns when the whole cluster answers `describe_cluster`.

        The first start downloads Kafka and formats the storage. If a node cannot start, those started with it are ended.
        """
        with exclusive(self._lock):
            state = self._read() or self._create()
            self._check(state)
            self._launch(state, [node for node in state.nodes if node.id not in self.running()])

    def restart(self, node: int) -> None:
        """Start one node that was killed or stopped; returns when it is part of the cluster again."""
        with exclusive(self._lock):
            state = self._state()
            self._launch(state, [self._node(state, node)])

    def stop(self, node: int | None = None, grace_s: float = _GRACE_S) -> None:
        """End the cluster, or one node, cleanly; what still runs after `grace_s` is killed. Stopping twice is fine."""
        with exclusive(self._lock):
            if (state := self._read()) is None:
                return
            ending = [i for i in state.processes if node in (None, i)]
            stop_all([state.processes[i] for i in ending], grace_s)
            self._write(replace(state, processes={i: p for i, p in state.processes.items() if i not in ending}))

    def kill(self, node: int = 1) -> None:
        """SIGKILL one node, as a power cut would; returns when it is gone."""
        self._process(node).kill()

    def pause(self, node: int = 1) -> None:
        """SIGSTOP one node: its sockets stay open and nobody answers. `resume` it in a `finally`."""
        self._process(node).pause()

    def resume(self, node: int = 1) -> None:
        """SIGCONT one node."""
        self._process(node).send(signal.SIGCONT)

    @property
    def _lock(self) -> Path:
        return self.directory / ".lock"

    def _log(self, node: Node) -> Path:
        return self.directory / f"kafka-{node.id}.log"

    def _process(self, node: int) -> Process:
        process = self._state().processes.get(node)
        if process is None or not process.alive():
            raise ConfigurationError(f"node {node} of {self.directory} does not run")
        return process

    @staticmethod
    def _node(state: _State, node: int) -> Node:
        found = next((n for n in state.nodes if n.id == node), None)
        if found is None:
            raise ConfigurationError(f"there is no node {node}: the cluster has {len(state.nodes)}")
        return found

    def _create(self) -> _State:
        listeners = len(self._security.listeners)
        nodes = self._wanted or 1
        count = nodes * (listeners + 1)
        ports = free_ports(count) if self._port is None else range(self._port, self._port + count)
        _check_free(ports)
        state = _State(random_id(), lay_out(nodes, ports, listeners))
        self._write(state)
        return state

    def _check(self, state: _State) -> None:
        made = (len(state.nodes), state.nodes[0].ports[0])
        if made != (self._wanted or made[0], self._port or made[1]):
            raise ConfigurationError(
                f"{self.directory} holds a cluster of {made[0]} node(s) from port {made[1]}: start it so, or name another directory"
            )

    def _launch(self, state: _State, nodes: Sequence[Node]) -> None:
        nodes = [node for node in nodes if node.id not in self.running()]
        _check_free([port for node in nodes for port in node.all_ports])
        started: dict[int, Process] = {}
        try:
            jars = self._cache.fetch(locked("kafka"))
            for node in nodes:
                self._format(state, node, jars)
                started[node.id] = spawn(_java(self._jvm, jars, "kafka.Kafka", self._properties(node)), self._log(node))
                state = replace(state, processes={**state.processes, **started})
                self._write(state)
            self._await_ready(state)
        except BaseException:
            for process in started.values():
                process.kill()
            raise

    def _format(self, state: _State, node: Node, jars: Sequence[Path]) -> None:
        data = self.directory / f"data-{node.id}"
        properties = server_properties(node, state.nodes, data, self._security)
        path = self._properties(node)
        path.touch(mode=0o600)  # it may hold passwords
        path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), "utf-8")
        if (data / "meta.properties").exists():
            return
        tool = _java(Jvm(heap_mb=128, short_lived=True), jars, "kafka.tools.StorageTool")
        command = [*tool, "format", "-g", "-t", state.cluster_id, "-c", str(path)]
        command += ["--initial-controllers", ",".join(n.voter for n in state.nodes)]
        for user, password in self._security.scram.items():
            command += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)  # noqa: S603 - our own words
        if done.returncode:
            raise ConfigurationError(f"cannot format {data}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def _properties(self, node: Node) -> Path:
        return self.directory / f"server-{node.id}.properties"

    def _await_ready(self, state: _State) -> None:
        deadline = time.monotonic() + _READY_S
        expected = {i for i, process in state.processes.items() if process.alive()}
        while not all(self._answers(self._node(state, i), expected) for i in expected):
            for node in state.nodes:
                if node.id in expected and not state.processes[node.id].alive():
                    raise ConfigurationError(f"Kafka node {node.id} ended at start:\n{log_tail(self._log(node))}")
            if time.monotonic() > deadline:
                tails = "\n".join(log_tail(self._log(node)) for node in state.nodes)
                raise ConfigurationError(f"Kafka did not answer within {_READY_S:.0f} s:\n{tails}")
            time.sleep(0.1)

    def _answers(self, node: Node, expected: set[int]) -> bool:
        if not answers(node.ports[0]):
            return False
        admin = AdminClient(
            {"bootstrap.servers": f"{HOST}:{node.ports[0]}", "log_level": 0, **self._security.admin},
        )
        try:
            cluster = admin.describe_cluster(request_timeout=2.0).result(timeout=3.0)
        except (KafkaException, TimeoutError):
            return False
        return expected <= {broker.id for broker in cluster.nodes}

    def _state(self) -> _State:
        state = self._read()
        if state is None:
            raise ConfigurationError(f"there is no local broker in {self.directory}: run `sightstream broker start`")
        return state

    def _read(self) -> _State | None:
        path = self.directory / "state.json"
        return _parse(json.loads(path.read_text("utf-8"))) if path.exists() else None

    def _write(self, state: _State) -> None:
        part = self.directory / "state.json.part"
        part.write_text(json.dumps(asdict(state), indent=2) + "\n", "utf-8")
        part.replace(self.directory / "state.json")


def _java(jvm: Jvm, jars: Sequence[Path], *words: str | Path) -> list[str]:
    path = ":".join(map(str, jars))
    return [str(java()), *jvm.options, "-cp", path, *map(str, words)]


def _parse(stored: dict[str, Any]) -> _State:
    nodes = tuple(Node(**{**node, "ports": tuple(node["ports"])}) for node in stored["nodes"])
    processes = {int(i): Process(**process) for i, process in stored["processes"].items()}
    return _State(stored["cluster_id"], nodes, processes)


def _check_free(ports: Sequence[int]) -> None:
    taken = [str(port) for port in ports if not is_free(port)]
    if taken:
        raise ConfigurationError(
            f"port {', '.join(taken)} of {HOST} is in use: stop what listens there, or choose --port"
        )
