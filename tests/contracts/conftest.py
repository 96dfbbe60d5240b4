"""A result store on SQLite and on a real PostgreSQL: what its contract is held against."""

from collections.abc import Iterator

import pytest

from sinks.store import SqlResultStore
from sinks.store_deliveries import SqlDeliveryQueue
from sinks.store_policy import StorePolicy
from sinks.store_schema import migrate
from sinks.store_tables import METADATA
from sinks.store_writes import StoreWriter
from tests.support.postgres import fresh_database
from tests.support.stores import Clock, Log


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One migrated database for the module, emptied before each test: making one takes longer than most tests."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('store')}/store.db"
    else:
        with fresh_database(request.getfixturevalue("postgres")) as url:
            yield url


@pytest.fixture
def policy(database: str) -> StorePolicy:
    return StorePolicy(database_url=database, keep_days=10, remember_days=20)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writer(policy: StorePolicy, clock: Clock) -> Iterator[StoreWriter]:
    writer = StoreWriter(policy, clock.us)
    migrate(writer.engine)
    with writer.engine.begin() as connection:
        for table in METADATA.sorted_tables:
            connection.execute(table.delete())
    yield writer
    writer.close()


@pytest.fixture
def log(writer: StoreWriter) -> Log:
    return Log(writer)


@pytest.fixture
def store(policy: StorePolicy, clock: Clock, writer: StoreWriter) -> Iterator[SqlResultStore]:
    store = SqlResultStore(policy, clock.us)
    yield store
    store.close()


@pytest.fixture
def queue(policy: StorePolicy, writer: StoreWriter) -> Iterator[SqlDeliveryQueue]:
    queue = SqlDeliveryQueue(policy)
    yield queue
    queue.close()
