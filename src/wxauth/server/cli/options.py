"""Options shared by several commands."""

import sys
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import click
from pydantic import TypeAdapter, ValidationError

from wxauth.server.web.bodies import Time, id_in_cursor

Command = TypeVar("Command", bound=Callable[..., object])

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def confirm(question: Callable[[], str], *, yes: bool) -> None:
    """Ask for confirmation on the terminal, unless `yes`. Raises: click.UsageError without a terminal, click.Abort."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("without a terminal, --yes must be given. 非终端环境须加 --yes。")
    click.confirm(question(), abort=True, err=True)


def page_options(command: Command) -> Command:
    """Add `--limit` and `--cursor`."""
    command = click.option("--cursor", callback=_cursor, help="The next_cursor of the page before.")(command)
    return click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)(command)


def text_option(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Option callback: a text, stripped."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter("must be UTF-8.") from None
    return value and value.strip()


def time_option(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    """Option callback: a time with its offset."""
    if value is None:
        return None
    try:
        return TypeAdapter(Time).validate_python(value)
    except ValidationError:
        raise click.BadParameter("must be a time with its offset, like 2026-11-27T18:00:00+08:00.") from None


def more(next_cursor: str | None) -> list[str]:
    """The note below a page that is not the last."""
    return [] if next_cursor is None else [f"There are more: --cursor {next_cursor} 还有更多。"]


def _cursor(_context: click.Context, _parameter: click.Parameter, value: str | None) -> UUID | None:
    try:
        return None if value is None else id_in_cursor(value)
    except ValueError:
        raise click.BadParameter("must be the next_cursor of a page.") from None
