"""How Alembic reaches the database: over the connection that `wxauth.server.core.migrations` hands in."""

from sqlmodel import SQLModel

import wxauth.server.core.tables  # noqa: F401 - fills the metadata
from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run 'wxauth migrate'")
context.configure(connection=connection, target_metadata=SQLModel.metadata, transactional_ddl=True)
context.run_migrations()
