"""The store's tables and their migrations, and which databases are none."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from schemas.errors import ConfigurationError
from sinks.store import SqlResultStore
from sinks.store_policy import StorePolicy
from sinks.store_schema import check_migrated, current_version, migrate, needed_version
from sinks.store_tables import METADATA
from sinks.store_writes import StoreWriter
from tests.support.stores import START_US


def test_migrations_make_the_tables_that_the_code_has(writer: StoreWriter) -> None:
    with writer.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    assert current_version(writer.engine) == needed_version()
    assert not migrate(writer.engine)


def test_a_newer_release_s_database_is_refused(writer: StoreWriter) -> None:
    with writer.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    try:
        for ask in (migrate, check_migrated):
            with pytest.raises(ConfigurationError, match="newer release"):
                ask(writer.engine)
    finally:
        with writer.engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": needed_version()})


async def test_readers_say_what_is_missing_until_somebody_has_migrated(tmp_path: Path) -> None:
    policy = StorePolicy(database_url=f"sqlite:///{tmp_path}/sub/store.db")
    store, writer = SqlResultStore(policy, lambda: START_US), StoreWriter(policy, lambda: START_US)
    assert "store migrate" in str(await store.check())
    migrate(writer.engine)
    assert await store.check() is None
    store.close()
    writer.close()


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://a/b", "redis://x"])
def test_urls_that_are_of_no_supported_database_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"store\.database_url"):
        StoreWriter(StorePolicy(database_url=url), lambda: 0)
