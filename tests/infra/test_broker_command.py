"""`sightstream broker` from a shell: starts, keeps its data, says what is wrong."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.broker.local import LocalKafka
from infra.broker.ports import free_ports
from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError
from schemas.topics import Topics
from tests.support.data import ROOT
from tests.support.kafka import create_topics, topic_names

pytestmark = pytest.mark.kafka


def _broker(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.cli", "broker", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "broker"
    LocalKafka(tmp_path / "broker").stop()


def test_start_status_stop_and_the_data_stays(directory: Path) -> None:
    port = free_ports(1)[0]
    assert _broker("status", "--dir", directory).returncode == 1
    started = _broker("start", "--dir", directory, "--port", str(port))
    assert started.returncode == 0, started.stderr
    assert f"127.0.0.1:{port}" in started.stdout
    assert f"127.0.0.1:{port}" in _broker("status", "--dir", directory).stdout
    connection = KafkaConnection(bootstrap=f"127.0.0.1:{port}")
    create_topics(connection, Topics("kept."))
    assert _broker("stop", "--dir", directory).returncode == 0
    assert _broker("status", "--dir", directory).returncode == 1
    assert _broker("start", "--dir", directory).returncode == 0
    assert {topic.name for topic in Topics("kept.").catalogue()} <= topic_names(connection)


def test_a_port_in_use_is_told_before_anything_is_made(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = _broker("start", "--dir", directory, "--port", str(port))
    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use" in done.stderr
    assert not list(directory.glob("data-*"))


def test_a_cluster_keeps_its_size_and_port(kafka: LocalKafka) -> None:
    with pytest.raises(ConfigurationError, match="holds a cluster of 1 node"):
        LocalKafka(kafka.directory, nodes=3).start()
    with pytest.raises(ConfigurationError, match="holds a cluster of 1 node"):
        LocalKafka(kafka.directory, port=1234).start()


def test_a_broker_that_cannot_start_shows_its_log(directory: Path) -> None:
    kafka = LocalKafka(directory)
    (directory / "data-1").mkdir(parents=True)
    (directory / "data-1" / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=x\n", "utf-8")
    with pytest.raises(ConfigurationError, match=r"(?s)Kafka node 1 ended at start:.*node"):
        kafka.start()
    assert kafka.running() == {}


def test_only_loopback_listens(kafka: LocalKafka) -> None:
    properties = (kafka.directory / "server-1.properties").read_text("utf-8")
    listeners = next(line for line in properties.splitlines() if line.startswith("listeners="))
    assert listeners.count("://") == listeners.count("://127.0.0.1:") == 2
