"""`wxauth migrate`."""

import asyncio
import sys
from contextlib import aclosing

import click

from wxauth.server.checks.rows import read_rights
from wxauth.server.cli.failures import failures_printed
from wxauth.server.cli.printing import Failed
from wxauth.server.core import migrations
from wxauth.server.core.database import Database
from wxauth.server.core.logs import configure_logging
from wxauth.server.core.models import is_newer
from wxauth.server.core.settings import DatabaseSettings, load_settings


@click.command()
@click.option("--to", "revision", default="head", show_default=True, help="An older revision reverts the later ones.")
def migrate(revision: str) -> None:
    """Migrate the database schema to this version.

    Replicas serve meanwhile. Several replicas may run it at once. It may be stopped and run again: each revision is
    applied as a whole or not at all.
    """
    with failures_printed():
        configure_logging(
            level="warning", log_format="console", stream=sys.stderr.buffer
        )  # that it waits, and for what
        url = load_settings(DatabaseSettings).database_url.get_secret_value()
        schema = asyncio.run(_migrate(url, revision))
    note = ", of a newer version than this one, which serves on with it" if is_newer(schema) else ""
    click.echo(f"schema at {schema or 'base'}{note}")


async def _migrate(url: str, revision: str) -> str | None:
    async with aclosing(Database(url)) as database:
        try:
            return await migrations.migrate(database, revision=revision)
        except (migrations.UnknownRevision, migrations.MigrationBlocked) as exc:
            raise Failed(str(exc)) from None
        except migrations.MigrationForbidden as exc:
            missing = (await read_rights(database)).missing_to_migrate
            to_do = f": as the owner of the database, {missing};" if missing else ""
            raise Failed(f"WXAUTH_DATABASE_URL: its role may not migrate: {exc}{to_do}") from None
