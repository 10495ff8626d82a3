"""The environment of Alembic, which runs it on the connection that `wxauth.core.migrations` provides."""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:  # Alembic's own command runs this file without the checks and limits of `wxauth migrate`
    raise SystemExit("run 'wxauth migrate'")
context.configure(connection=connection, transactional_ddl=True)
context.run_migrations()
