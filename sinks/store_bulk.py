"""Many rows at once, the same on SQLite and PostgreSQL."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, delete
from sqlalchemy.dialects import postgresql, sqlite

from sinks.store_engine import POSTGRESQL

_KEYS_AT_ONCE = 500


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; one whose primary key is there replaces that one's columns. Rows must have the same columns."""
    if rows:
        statement = insert(connection, table)
        keys = [column.name for column in table.primary_key]
        fresh = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=fresh), list(rows))


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, except those whose primary key is there."""
    if rows:
        connection.execute(insert(connection, table).on_conflict_do_nothing(), list(rows))


def insert(connection: Connection, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """An insert that knows about conflicts."""
    return postgresql.insert(table) if connection.dialect.name == POSTGRESQL else sqlite.insert(table)


def remove(connection: Connection, table: Table, keys: Collection[tuple[str, str]], column: str = "image_id") -> None:
    """Delete the rows of these (tenant, id)s; `column` is what the id is called."""
    if keys:
        where = and_(table.c.tenant == bindparam("a_tenant"), table.c[column] == bindparam("an_id"))
        connection.execute(delete(table).where(where), [{"a_tenant": t, "an_id": i} for t, i in sorted(keys)])


def matching(
    table: Table, keys: Collection[tuple[str, str]], column: str = "image_id"
) -> Iterator[ColumnElement[bool]]:
    """Conditions that together hold for the rows of these (tenant, id)s: each is one search of an index."""
    by_tenant: dict[str, list[str]] = defaultdict(list)
    for tenant, one in sorted(keys):
        by_tenant[tenant].append(one)
    for tenant, ids in by_tenant.items():
        for start in range(0, len(ids), _KEYS_AT_ONCE):
            yield and_(table.c.tenant == tenant, table.c[column].in_(ids[start : start + _KEYS_AT_ONCE]))
