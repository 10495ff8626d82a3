"""How commands print answers, as JSON or as text, and failures."""

import os
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import click
from pydantic_core import to_json

if TYPE_CHECKING:  # imports Starlette
    from wxauth.problems import Language

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class Failed(click.ClickException):
    """Ends the command with status 1 and the lines of its message."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Print the message to standard error, without click's `Error:` before it."""
        del file
        click.echo(self.message, err=True)


def show(answer: object, text: str | Iterable[tuple[str, ...]], *notes: str, as_json: bool) -> None:
    """Print an answer.

    Args:
        answer: Printed as JSON, if `as_json`.
        text: Printed otherwise: a line, or a table's rows.
        notes: Lines printed to standard error beside the text.
        as_json: Whether `--json` was given.
    """
    if as_json:
        click.echo(to_json(answer))
        return
    if isinstance(text, str):
        click.echo(text)
    else:
        print_table(text)
    for note in notes:
        click.echo(note, err=True)


def print_table(rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows in columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def printable(text: str | None) -> str:
    """A text chosen by a user, without characters that control a terminal; `-` if there is none."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text or "-")


def to_the_minute(time: datetime | None) -> str:
    """A time to the minute."""
    return "-" if time is None else time.isoformat(timespec="minutes")


def terminal_language() -> "Language":
    """The language of the terminal's user, from the locale."""
    variables = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return "zh" if next(filter(None, variables), "").lower().startswith("zh") else "en"
