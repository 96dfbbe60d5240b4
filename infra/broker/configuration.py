"""The local cluster on paper: its nodes, listeners and server properties."""

import base64
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.broker.ports import HOST

CONTROLLER = "CONTROLLER"

# Small and quick for one machine: few internal partitions, no rebalance delay, a dead broker's session ends after 3 s.
_SMALL = {
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A port for clients: `protocol` is `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.

    `properties` are the listener's own, without the `listener.name.*.` in front.
    """

    name: str = "PLAINTEXT"
    protocol: str = "PLAINTEXT"
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How clients get in. The first listener also carries the traffic between brokers.

    `scram` holds the passwords of SCRAM-SHA-512 users that exist from the start; `properties` go to every server as they are;
    `admin` are librdkafka settings with which readiness is asked for. The default lets everybody in: loopback only.
    """

    listeners: tuple[Listener, ...] = (Listener(),)
    scram: Mapping[str, str] = field(default_factory=dict, repr=False)
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    admin: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Node:
    """One server, broker and controller at once. `ports` are those of the listeners, in their order."""

    id: int
    ports: tuple[int, ...]
    controller_port: int
    directory_id: str

    @property
    def all_ports(self) -> tuple[int, ...]:
        """Every port it listens on."""
        return (*self.ports, self.controller_port)

    @property
    def voter(self) -> str:
        """This node in the words of `--initial-controllers`."""
        return f"{self.id}@{HOST}:{self.controller_port}:{self.directory_id}"


def random_id() -> str:
    """A fresh id as Kafka writes them: 22 characters of URL-safe base64, no dash in front (it would read as an option)."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def lay_out(nodes: int, ports: Sequence[int], listeners: int) -> tuple[Node, ...]:
    """Nodes 1..n on consecutive slices of `ports`: each takes one port per listener, then one for its controller."""
    step = listeners + 1
    slices = [tuple(ports[at : at + step]) for at in range(0, nodes * step, step)]
    return tuple(Node(i, own[:-1], own[-1], random_id()) for i, own in enumerate(slices, start=1))


def server_properties(node: Node, nodes: Sequence[Node], data: Path, security: Security) -> dict[str, str]:
    """Everything in one node's `server.properties`."""
    names = [listener.name for listener in security.listeners]
    addresses = [f"{name}://{HOST}:{port}" for name, port in zip([*names, CONTROLLER], node.all_ports, strict=True)]
    protocols = [f"{listener.name}:{listener.protocol}" for listener in security.listeners]
    own = {
        f"listener.name.{listener.name.lower()}.{key}": value
        for listener in security.listeners
        for key, value in listener.properties.items()
    }
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "controller.quorum.bootstrap.servers": ",".join(f"{HOST}:{other.controller_port}" for other in nodes),
        "listeners": ",".join(addresses),
        "advertised.listeners": ",".join(addresses),
        "listener.security.protocol.map": ",".join([f"{CONTROLLER}:PLAINTEXT", *protocols]),
        "inter.broker.listener.name": names[0],
        "controller.listener.names": CONTROLLER,
        "log.dirs": str(data),
        **_replication(len(nodes)),
        **_SMALL,
        **own,
        **security.properties,
    }


def _replication(nodes: int) -> dict[str, str]:
    factor, least = (str(min(nodes, 3)), "2" if nodes >= 3 else "1")
    return {
        "default.replication.factor": factor,
        "min.insync.replicas": least,
        "offsets.topic.replication.factor": factor,
        "transaction.state.log.replication.factor": factor,
        "transaction.state.log.min.isr": least,
        "share.coordinator.state.topic.replication.factor": factor,
        "share.coordinator.state.topic.min.isr": least,
    }
