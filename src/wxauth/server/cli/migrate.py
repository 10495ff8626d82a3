"""`wxauth migrate`."""

import click

from wxauth.server.cli.asking import Failed, read_settings, terminal_language


@click.command()
@click.option("--to", "revision", default="head", show_default=True, help="An older revision undoes the later ones.")
def migrate(revision: str) -> None:
    """Bring the database's schema to what this version needs, while replicas serve.

    Safe to run from several replicas at once, and to be stopped and run again: each revision is done whole or not.
    """
    import asyncio
    from contextlib import aclosing

    from wxauth.errors import StorageUnavailable
    from wxauth.server.checks.rows import rights
    from wxauth.server.core.database import Database, trouble_of
    from wxauth.server.core.migrations import MigrationBlocked, MigrationForbidden, UnknownRevision
    from wxauth.server.core.migrations import migrate as migrate_database
    from wxauth.server.core.schema import is_newer
    from wxauth.server.core.settings import DatabaseSettings

    async def reached() -> str | None:
        async with aclosing(Database(url)) as database:
            try:
                return await migrate_database(database, revision=revision)
            except MigrationForbidden as exc:
                missing = (await rights(database)).missing_to_migrate
                to_do = f": as the owner of the database, {missing};" if missing else ""
                raise Failed(f"WXAUTH_DATABASE_URL: its role may not migrate: {exc}{to_do}") from None

    url = read_settings(DatabaseSettings).database_url.get_secret_value()
    try:
        schema = asyncio.run(reached())
    except StorageUnavailable as exc:
        raise Failed(f"WXAUTH_DATABASE_URL: {getattr(trouble_of(exc), terminal_language())}") from None
    except (UnknownRevision, MigrationBlocked) as exc:
        raise Failed(str(exc)) from None
    note = ", of a newer version than this one, which serves on with it" if is_newer(schema) else ""
    click.echo(f"schema at {schema or 'base'}{note}")
