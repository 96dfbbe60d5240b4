"""Alembic's entry: runs the migrations on the connection that `sinks.store_schema` hands over, within its transaction."""

from alembic import context

from sinks.store_tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
