"""How commands ask the database and print what they are told."""

import os
import sys
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import datetime

    from wxauth.problems import Language
    from wxauth.server.core.database import Database
    from wxauth.server.core.services import Services
    from wxauth.server.core.settings import AnySettings

Answer = TypeVar("Answer")
Part = TypeVar("Part", "Database", "Services")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class Failed(click.ClickException):
    """Ends the command with status 1 and the lines of its message."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Print the message to standard error, without click's `Error:` before it."""
        del file
        click.echo(self.message, err=True)


def with_database(ask: "Callable[[Database, datetime], Awaitable[Answer]]") -> "Answer":
    """Call `ask` with the database of WXAUTH_DATABASE_URL and the database's time; the result. Raises: Failed."""
    from wxauth.server.core.database import Database
    from wxauth.server.core.logs import configure_logging
    from wxauth.server.core.settings import DatabaseSettings

    settings = read_settings(DatabaseSettings)
    configure_logging(
        level="critical", log_format="console", stream=sys.stderr.buffer
    )  # what fails is told by Failed, once

    async def at_its_time(database: Database) -> "Answer":
        return await ask(database, await database.time())

    return _asked(lambda: Database(settings.database_url.get_secret_value()), at_its_time)


def with_services(ask: "Callable[[Services], Awaitable[Answer]]") -> "Answer":
    """Call `ask` with the service's parts; the result. All settings must be there. Raises: Failed."""
    from wxauth.server.core.clock import DatabaseClock
    from wxauth.server.core.logs import configure_logging
    from wxauth.server.core.settings import Settings
    from wxauth.server.core.timekeeping import correct
    from wxauth.server.service.build import build_services

    settings = read_settings(Settings)
    configure_logging(
        level="error", log_format="console", stream=sys.stderr.buffer
    )  # errors say what to change at WeChat

    clock = DatabaseClock()

    async def at_the_databases_time(services: "Services") -> "Answer":
        await correct(clock, services.database)
        await services.apps.refresh()
        return await ask(services)

    return _asked(lambda: build_services(settings, clock=clock), at_the_databases_time)


def _asked(make: "Callable[[], Part]", ask: "Callable[[Part], Awaitable[Answer]]") -> "Answer":
    import asyncio
    from contextlib import aclosing

    from wxauth.errors import StorageUnavailable
    from wxauth.server.core.database import trouble_of

    async def answer() -> "Answer":
        async with aclosing(make()) as part:
            return await ask(part)

    try:
        return asyncio.run(answer())
    except StorageUnavailable as exc:
        raise Failed(f"WXAUTH_DATABASE_URL: {getattr(trouble_of(exc), terminal_language())}") from None


def printable(text: str | None) -> str:
    """A text that a person chose, without the characters that steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text or "-")


def terminal_language() -> "Language":
    """The language of the terminal's reader, by the locale."""
    variables = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return "zh" if next(filter(None, variables), "").lower().startswith("zh") else "en"


def print_table(rows: "Iterable[tuple[str, ...]]") -> None:
    """Print rows in columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def read_settings(kind: "type[AnySettings]") -> "AnySettings":
    """The settings of this kind. Raises: Failed."""
    from wxauth.server.core.settings import InvalidSettings, load_settings

    try:
        return load_settings(kind)
    except InvalidSettings as exc:
        raise Failed(str(exc)) from None


def minute(time: "datetime") -> str:
    """A time as people read it."""
    return time.isoformat(timespec="minutes")
