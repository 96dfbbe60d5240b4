"""Fixtures for everybody: the brokers of the run, topics of this test alone, clients for them.

A broker that cannot start fails the tests that need it; nothing is skipped for want of one.
"""

import secrets
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from detectors.torch_environment import calm_threads
from infra.broker.local import LocalKafka
from producers.publisher import Publisher
from schemas.codec import Codec, PackagedSchemas
from schemas.connection import KafkaConnection
from schemas.topics import Topics
from tests.support.kafka import Run, create_topics, delete_topics
from tests.support.security import SecureKafka, start_secure

# Before any test imports torch, as its backends do it: threads that spin would take the other xdist workers' cores.
calm_threads()
_RUN = pytest.StashKey[Run]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seed` repeats what chance did in a run; `--pictures` writes the documents' pictures that tests make."""
    parser.addoption(
        "--seed", type=int, help="the seed of every test that leaves something to chance, as a run printed it"
    )
    parser.addoption("--pictures", action="store_true", help="write the pictures in docs/ that tests make")


@pytest.fixture
def chance(pytestconfig: pytest.Config, record_property: Callable[[str, object], None]) -> Random:
    """What a test leaves to chance comes from here; the seed is printed with the verdict, and `--seed` gives it again."""
    given = pytestconfig.getoption("seed")
    seed = secrets.randbelow(2**32) if given is None else given
    record_property("seed", seed)
    return Random(seed)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The verdicts of tests with a seed."""
    for verdict, outcome in (("PASS", "passed"), ("FAIL", "failed")):
        for report in terminalreporter.getreports(outcome):
            for seed in (value for name, value in report.user_properties if name == "seed" and report.when == "call"):
                terminalreporter.write_line(f"{verdict} seed={seed} {report.nodeid}")


def pytest_configure(config: pytest.Config) -> None:
    """The controller, or the only process, makes the run; xdist's workers are told where it is."""
    given = getattr(config, "workerinput", None)
    config.stash[_RUN] = Run.begin() if given is None else Run(Path(given["run"]))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker the directory of the run."""
    node.workerinput["run"] = str(node.config.stash[_RUN].directory)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The process that made the run is the last to leave: it ends the brokers."""
    if not hasattr(config, "workerinput") and _RUN in config.stash:
        config.stash[_RUN].end()


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    """The directory and brokers of this pytest run."""
    return pytestconfig.stash[_RUN]


@pytest.fixture(scope="session")
def kafka(run: Run) -> LocalKafka:
    """A running one-node Kafka, shared by all tests and xdist workers of the run: never stop or kill this one."""
    return run.kafka()


@pytest.fixture(scope="module")
def private_kafka(run: Run) -> Iterator[LocalKafka]:
    """A one-node Kafka for this module alone, to be killed, paused and restarted; leave it running."""
    with run.private(nodes=1) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def three_brokers(run: Run) -> Iterator[LocalKafka]:
    """A three-node Kafka (replication 3, two in sync) for this module alone; leave all nodes running."""
    with run.private(nodes=3) as kafka:
        yield kafka


@pytest.fixture(scope="session")
def secure_kafka(run: Run) -> SecureKafka:
    """A Kafka with TLS, SASL and ACLs, shared by all tests of the run: topics and ACLs of your own, `allow` what you need."""
    return start_secure(run.directory / "secure")


@pytest.fixture(scope="session")
def registry_url(run: Run) -> str:
    """A Confluent-compatible schema registry, in memory, shared by all tests of the run: use subjects of your own."""
    return run.registry().url


@pytest.fixture(scope="session")
def postgres(run: Run) -> Iterator[str]:
    """The URL of a PostgreSQL server shared by all tests of the run: use databases of your own (`tests.support.postgres`)."""
    from tests.support.postgres import postgres_server

    with postgres_server(run.directory / "postgres") as url:
        yield url


@pytest.fixture
def connection(kafka: LocalKafka) -> KafkaConnection:
    """How to reach the shared Kafka."""
    return KafkaConnection(bootstrap=kafka.bootstrap)


@pytest.fixture
def topics(connection: KafkaConnection) -> Iterator[Topics]:
    """The whole catalogue under a prefix of this test's own, created on the shared Kafka and deleted afterwards."""
    topics = Topics(prefix=f"t{uuid.uuid4().hex[:10]}.")
    create_topics(connection, topics)
    yield topics
    delete_topics(connection, [topic.name for topic in topics.catalogue()])


@pytest.fixture
def group(topics: Topics) -> str:
    """The name of a consumer group of this test's own."""
    return f"{topics.prefix}group"


@pytest.fixture
def codec() -> Codec:
    """The codec that needs no registry."""
    return Codec(PackagedSchemas())


@pytest.fixture
def publisher(connection: KafkaConnection, codec: Codec, topics: Topics) -> Iterator[Publisher]:
    """A publisher to this test's topics; closed, and so flushed, at the end."""
    with Publisher(connection, codec, topics) as publisher:
        yield publisher
