"""Options that several commands have."""

import sys
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

import click

from wxauth.server.web.paging import id_in_cursor

Command = TypeVar("Command", bound=Callable[..., object])

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def confirm(question: Callable[[], str], *, yes: bool) -> None:
    """Ask on the terminal, unless `yes`. Raises: click.UsageError without a terminal, click.Abort."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("without a terminal, --yes must be given. 非终端环境须加 --yes。")
    click.confirm(question(), abort=True, err=True)


def page_options(command: Command) -> Command:
    """Add `--limit` and `--cursor`."""
    command = click.option("--cursor", callback=_cursor, help="The next_cursor of the page before.")(command)
    return click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)(command)


def more(next_cursor: str | None) -> list[str]:
    """The note below a page that another one follows."""
    return [] if next_cursor is None else [f"There are more: --cursor {next_cursor} 还有更多。"]


def _cursor(_context: click.Context, _parameter: click.Parameter, value: str | None) -> UUID | None:
    try:
        return None if value is None else id_in_cursor(value)
    except ValueError:
        raise click.BadParameter("must be the next_cursor of a page.") from None
