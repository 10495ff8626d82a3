"""The printing of results and failures, and the switches that decide how commands print and ask."""

import re
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

import click
from pydantic_core import to_json

from wxauth.i18n import SOURCE, Text, lazy_gettext as _
from wxauth.terminal import localized, printable_json, terminal_language, width, word
from wxauth.texts import clean_text
from wxauth.web.pages import Page, items_of

Command = TypeVar("Command", bound=Callable[..., object])

SHOWN_ONCE: Final = _("Keep the secret in a safe place. It is shown only once.")
# The pattern matches characters that control a terminal or the direction of text, cannot be encoded, or are invisible.
# It leaves out the invisible characters that scripts and emoji need: U+200B (in Thai, it allows a line break), joiners
# (U+200C and U+200D) and variation selectors (U+FE0F). It also leaves out letters that are printed as a space, such as
# the Hangul filler (U+3164).
_CONTROLS: Final = re.compile("[\0-\x1f\x7f-\x9f\xad\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")
_WORD_COLUMNS: Final = ("status", "state", "source", "kind", "sign_up")  # of words to translate, such as `active`


def _switch(name: str, text: str) -> Callable[[Command], Command]:
    """Return a decorator that adds a switch. The command reads the switch with `_is_given`, and not as an argument."""

    def store(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        context.meta[name] = value

    return click.option(name, is_flag=True, expose_value=False, callback=store, help=text)


def _is_given(name: str) -> bool:
    return bool(click.get_current_context().meta.get(name))


json_option = _switch("--json", "Print JSON for programs.")
yes_option = _switch("--yes", "Don't ask for confirmation.")


def prints_json() -> bool:
    """Return whether `--json` was given, which means that a program reads the output."""
    return _is_given("--json")


class Failed(click.ClickException):
    """An error that prints a text, and ends the command with status 1."""

    def __init__(self, text: str) -> None:
        super().__init__(localized(text))

    def show(self, file: object = None) -> None:
        """Print the message to standard error, without click's `Error:` before it."""
        del file  # click never passes a file
        click.echo(self.message, err=True)


def sentence(text: str) -> str:
    """Return a text in the language of the terminal, with a full stop at the end."""
    return localized(text) + localized(_("."))


class WrongCall(click.UsageError):
    """An error about an incorrect call. It prints a text, and ends the command with status 2."""

    def __init__(self, text: Text) -> None:
        super().__init__(sentence(text))


def echo(text: str, *, err: bool = False) -> None:
    """Print a text in the language of the terminal. With `err`, print to standard error."""
    click.echo(localized(text), err=err)


def show(as_json: object, as_text: str | Iterable[tuple[object, ...]], *notes: str) -> None:
    """Print the result of a command: `as_json` with `--json`, and otherwise `as_text`, a text or the rows of a table.

    `notes` are further lines, which are printed to standard error without `--json`.
    """
    if prints_json():
        click.echo(printable_json(to_json(as_json)))
        return
    if isinstance(as_text, str):
        echo(as_text)
    else:
        print_table(as_text)
    for note in notes:
        echo(note, err=True)


def show_items(
    items: Page[Any] | Iterable[Any], names: str, *, as_json: object = None, **shown: Callable[[Any], object]
) -> None:
    """Print a list, or a page of a list, as a table. For `names` and `shown`, see the function `table`.

    With `--json`, print `as_json`, by default the items and the cursor of the next page.
    """
    page = items if isinstance(items, Page) else Page(list(items), None)
    notes = []
    if page.next_cursor:
        notes.append(_("There are more results. To list them, add --cursor {cursor}", cursor=page.next_cursor))
    show(items_of(page) if as_json is None else as_json, table(page.items, names, **shown), *notes)


def table(items: Iterable[Any], names: str, **shown: Callable[[Any], object]) -> list[tuple[object, ...]]:
    """Return the rows of a table of items, below their header.

    Args:
        items: The items, one for each row.
        names: The columns, in order and separated by spaces. Each is a field of the items, unless `shown` contains it.
        shown: Functions that return the values of the columns that are not simply fields.
    """
    columns = names.split()
    value_functions = [shown.get(name, partial(_field, name=name)) for name in columns]
    rows = [tuple(value_of(item) for value_of in value_functions) for item in items]
    return [header(*columns), *rows]


def header(*columns: str) -> tuple[str, ...]:
    """Return the headings of a table's columns, in the language of the terminal."""
    return tuple(name.upper() if terminal_language() == SOURCE else word(name) for name in columns)


def print_table(rows: Iterable[tuple[object, ...]]) -> None:
    """Print rows in columns, each of which is as wide as its widest cell."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        # Python's own padding counts characters, but a Chinese character is as wide as two Latin letters.
        padded = (cell + " " * (column_width - width(cell)) for cell, column_width in zip(row, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _field(item: Any, name: str) -> object:
    value = item[name] if isinstance(item, dict) else getattr(item, name)
    return word(value) if name in _WORD_COLUMNS else value


def _cell(value: object) -> str:
    if value == " ":  # the heading of a column without a name, for which `printable` would return "-"
        return " "
    if isinstance(value, datetime):
        return to_the_minute(value)
    if isinstance(value, list | tuple):
        value = ",".join(value)
    if isinstance(value, dict):
        value = to_json(value).decode()
    return printable(None if value is None else localized(value))


def printable(text: str | None) -> str:
    """Return a text with U+FFFD in place of each control or invisible character, or `-` if nothing in it is visible."""
    printed = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text or "")
    return printed if clean_text(printed) else "-"


def state_of(item: Any) -> Text:
    """Return whether an app or a webhook is enabled, as a word."""
    return _("enabled") if item.is_enabled else _("disabled")


def _local_time(time: datetime | None, *, timespec: str) -> str:
    return "-" if time is None else time.astimezone().isoformat(timespec=timespec)


to_the_minute = partial(_local_time, timespec="minutes")
to_the_second = partial(_local_time, timespec="seconds")


def confirm(question: Callable[[], Text]) -> None:
    """Ask for confirmation on the terminal, unless `--yes` was given.

    `question` is only called if the command asks, because a question can contain names from the database.
    """
    if _is_given("--yes"):
        return
    if not sys.stdin.isatty():
        raise WrongCall(_("there is no terminal to confirm in. Add --yes"))
    click.confirm(localized(question()), abort=True, err=True)
