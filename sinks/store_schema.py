"""The version of the database's schema: which one is there, which one this release needs, and the way from one to the other (Alembic)."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from schemas.errors import ConfigurationError
from sinks.store_engine import passing_errors, writing

_SCRIPTS = Path(__file__).with_name("migrations")


def needed_version() -> str:
    """The version that this release reads and writes."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def current_version(engine: Engine) -> str | None:
    """The version of the database, None before the first migration. Raises BusyError."""
    with passing_errors(), engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def migrate(engine: Engine) -> bool:
    """Bring the database to the version of this release; whether there was anything to do. Several may do it at once.

    Raises ConfigurationError where a newer release has been there, BusyError while the database cannot be had.
    """
    with writing(engine) as connection:
        before = MigrationContext.configure(connection).get_current_revision()
        if before == needed_version():
            return False
        _check_known(before)
        command.upgrade(_config(connection), "head")
        return True


def check_migrated(engine: Engine) -> None:
    """Raises ConfigurationError where the database has another version than this release needs."""
    version = current_version(engine)
    if version != needed_version():
        _check_known(version)
        raise ConfigurationError("the result store's database is not up to date: run `sightstream store migrate`")


def _check_known(version: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if version is not None and version not in known:
        raise ConfigurationError(f"a newer release made the result store's database (its version is {version})")


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={} if connection is None else {"connection": connection})
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
