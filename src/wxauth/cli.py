"""The commands. Each loads only what it needs, so that `--help` is quick."""

import os
import sys
from typing import TYPE_CHECKING

import click

from wxauth import __version__

if TYPE_CHECKING:
    from wxauth.settings import AnySettings


class _Failed(click.ClickException):
    """Ends the command with status 1 and the lines of its message."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Print to standard error, nothing around it."""
        del file
        click.echo(self.message, err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wxauth")
def main() -> None:
    """WeChat mini-program login as a service."""


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Where the service listens; 8000, or WXAUTH_PORT.")
@click.option("--wechat-port", type=click.IntRange(1, 65535), default=8001, show_default=True)
def dev(port: int | None, wechat_port: int) -> None:
    """Run the service on this machine, with nothing installed or configured.

    Brings its own PostgreSQL (kept under .wxauth/) and a simulated WeChat. WXAUTH_DATABASE_URL, where it is
    set, is used instead of that PostgreSQL.
    """
    if os.name != "posix":
        raise _Failed("wxauth dev needs Linux or macOS; on Windows run it in WSL. 在 Windows 上请使用 WSL。")
    from wxauth.dev.run import DevFailed, run

    try:
        run(port=port, wechat_port=wechat_port)
    except DevFailed as exc:
        raise _Failed(str(exc)) from None


@main.command()
def serve() -> None:
    """Run the service in production. Settings come from WXAUTH_* (see the README)."""
    from wxauth.server import serve
    from wxauth.settings import InvalidSettings, Settings

    settings = _settings(Settings)
    try:
        serve(settings)
    except InvalidSettings as exc:
        raise _Failed(str(exc)) from None


@main.command()
@click.option("--to", "revision", default="head", show_default=True, help="An older revision undoes the later ones.")
def migrate(revision: str) -> None:
    """Bring the database's schema to what this version needs. Safe to run from several replicas at once."""
    import asyncio

    from wxauth.errors import StorageUnavailable
    from wxauth.settings import DatabaseSettings
    from wxauth.store.database import Database, reason_of
    from wxauth.store.migrations import UnknownRevision
    from wxauth.store.migrations import migrate as migrate_database

    database = Database(_settings(DatabaseSettings).database_url.get_secret_value())
    try:
        reached = asyncio.run(migrate_database(database, revision=revision))
    except StorageUnavailable as exc:
        raise _Failed(f"WXAUTH_DATABASE_URL: {exc.detail}: {reason_of(exc)}") from None
    except UnknownRevision as exc:
        raise _Failed(str(exc)) from None
    click.echo(f"schema at {reached or 'base'}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def check(as_json: bool) -> None:
    """Say what in the configuration is wrong, and whether the database and WeChat answer. Changes nothing."""
    import asyncio
    import json

    from wxauth.checks import check_all
    from wxauth.logs import configure_logging

    configure_logging(level="error", log_format="console", stream=sys.stderr.buffer)
    results = asyncio.run(check_all())
    if as_json:
        click.echo(json.dumps([result._asdict() for result in results], ensure_ascii=False))
    else:
        for result in results:
            click.echo(f"{'ok ' if result.ok else 'BAD'}  {result.name}: {result.message}")
    sys.exit(0 if all(result.ok for result in results) else 1)


@main.group()
def secret() -> None:
    """The key that seals what is stored."""


@secret.command()
def new() -> None:
    """Print a new value for WXAUTH_SECRET_KEY."""
    import base64
    import secrets

    click.echo(base64.b64encode(secrets.token_bytes(32)).decode())


@main.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    import json

    from wxauth.app import create_api

    click.echo(json.dumps(create_api().openapi(), ensure_ascii=False, indent=2))


def _settings(kind: "type[AnySettings]") -> "AnySettings":
    from wxauth.settings import InvalidSettings, load_settings

    try:
        return load_settings(kind)
    except InvalidSettings as exc:
        raise _Failed(str(exc)) from None


if __name__ == "__main__":
    main()
