"""`wxauth migrate`."""

import click

from wxauth.cli.asking import Failed, read_settings


@click.command()
@click.option("--to", "revision", default="head", show_default=True, help="An older revision undoes the later ones.")
def migrate(revision: str) -> None:
    """Bring the database's schema to what this version needs, while replicas serve.

    Safe to run from several replicas at once, and to be stopped and run again: each revision is done whole or not.
    """
    import asyncio

    from wxauth.core.database import Database, reason_of
    from wxauth.core.migrations import MigrationBlocked, UnknownRevision
    from wxauth.core.migrations import migrate as migrate_database
    from wxauth.core.settings import DatabaseSettings
    from wxauth.errors import StorageUnavailable

    database = Database(read_settings(DatabaseSettings).database_url.get_secret_value())
    try:
        reached = asyncio.run(migrate_database(database, revision=revision))
    except StorageUnavailable as exc:
        raise Failed(f"WXAUTH_DATABASE_URL: {exc.detail}: {reason_of(exc)}") from None
    except (UnknownRevision, MigrationBlocked) as exc:
        raise Failed(str(exc)) from None
    click.echo(f"schema at {reached or 'base'}")
