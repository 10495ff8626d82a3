"""How Alembic reaches the database: over the connection that `wxauth.server.core.migrations` hands in."""

from importlib import import_module
from pathlib import Path

from sqlmodel import SQLModel

import wxauth.server
from alembic import context

for tables in Path(wxauth.server.__file__).parent.glob("*/tables.py"):  # fills the metadata
    import_module(f"wxauth.server.{tables.parent.name}.tables")

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run 'wxauth migrate'")
context.configure(connection=connection, target_metadata=SQLModel.metadata, transactional_ddl=True)
context.run_migrations()
