"""Runs Alembic on the connection that `wxauth.server.core.migrations` provides."""

from alembic import context
from wxauth.server.core.models import all_tables

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run 'wxauth migrate'")
context.configure(connection=connection, target_metadata=all_tables(), transactional_ddl=True)
context.run_migrations()
