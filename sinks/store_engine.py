"""Connections to the store's database: SQLite in a file, or PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from schemas.errors import BusyError, ConfigurationError, Reason

SQLITE, POSTGRESQL = "sqlite", "postgresql"
_WRITER_LOCK = 0x5167_6874  # whoever writes the projection holds it for the transaction, on any database server
_RETRY_S = 1.0
# PostgreSQL's classes of errors that are about the moment, not about what was sent: connection, resources, operator, system, locks.
_PASSING = ("08", "25006", "40", "53", "55", "57", "58")
_NOT_MIGRATED = ("42P01", "42703")


def open_engine(url: str, *, writes: bool, timeout_s: float, connections: int = 1) -> Engine:
    """An engine; nothing is connected yet. Without `writes` each statement stands alone and sees the newest state.

    Raises ConfigurationError for a URL that is none of the two, or a driver that is not installed.
    """
    parsed = _checked(url)
    pool: dict[str, Any] = {"pool_size": connections, "max_overflow": 0, "pool_timeout": timeout_s}
    mode: dict[str, Any] = {} if writes else {"isolation_level": "AUTOCOMMIT"}
    if parsed.get_backend_name() == SQLITE:
        Path(parsed.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": timeout_s}, **pool, **mode)
        event.listen(engine, "connect", _set_up_sqlite)
        if writes:
            event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return engine
    limit_ms = round(timeout_s * 1000)
    options = f"-c statement_timeout={limit_ms} -c lock_timeout={limit_ms} -c timezone=UTC"
    arguments = {"connect_timeout": max(2, round(timeout_s)), "options": options, "application_name": "sightstream"}
    try:
        return create_engine(parsed, connect_args=arguments, pool_pre_ping=True, **pool, **mode)
    except ModuleNotFoundError as error:
        raise ConfigurationError("a PostgreSQL store needs a driver: pip install 'sightstream[postgres]'") from error


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that is the only one to write the projection. Raises BusyError while the database cannot be had.

    It may be lost in a power cut, but whole: positions and rows go together, so that the log brings both back.
    """
    with passing_errors(), engine.begin() as connection:
        if engine.dialect.name == POSTGRESQL:
            connection.execute(select(func.pg_advisory_xact_lock(_WRITER_LOCK)))
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        yield connection


@contextmanager
def passing_errors() -> Iterator[None]:
    """Errors of the database that pass as BusyError; those of a statement or its values remain what they are."""
    try:
        yield
    except (DisconnectionError, PoolTimeoutError) as error:
        raise _busy(error) from error
    except DBAPIError as error:
        if not is_passing(error):
            raise
        raise _busy(error) from error


def is_passing(error: DBAPIError) -> bool:
    """Whether the same statement may succeed later: the database is away, locked, full, or not migrated yet."""
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return bool(state.startswith(_PASSING) or state in _NOT_MIGRATED)
    return error.connection_invalidated or type(error.orig).__name__ == "OperationalError"


def _busy(error: Exception) -> BusyError:
    reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
    return BusyError(Reason.STORAGE_UNAVAILABLE, f"the result store's database: {reason}", _RETRY_S)


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except ArgumentError as error:
        raise ConfigurationError("store.database_url is no URL of a database") from error
    if backend == "postgres":
        backend = POSTGRESQL
    if backend == POSTGRESQL:
        return parsed.set(drivername="postgresql+psycopg")
    if backend != SQLITE:
        raise ConfigurationError(f"store.database_url: {backend} is not supported, only sqlite and postgresql are")
    if parsed.database in (None, "", ":memory:"):
        raise ConfigurationError("store.database_url: SQLite needs a file, sqlite:///FILE: several processes read it")
    return parsed.set(drivername="sqlite+pysqlite")


def _set_up_sqlite(connection: Any, _: Any) -> None:
    """Readers never wait for the writer; a commit waits for no disk, which costs at most what the log brings back."""
    connection.isolation_level = None  # transactions begin where we say so
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "temp_store=MEMORY", "cache_size=-65536"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
