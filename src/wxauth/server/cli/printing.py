"""What commands share: how they print answers and failures, and the options that several have."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from wxauth.errors import Title
from wxauth.server.core.setting_types import picture_url
from wxauth.server.core.terminal import (
    Text,
    TextError,
    WrongValue,
    os_reason,
    say,
    shown,
    terminal_language,
    width,
    word,
)
from wxauth.server.web.bodies import Time, id_in_cursor
from wxauth.texts import clean_text

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class Failed(click.ClickException):
    """Ends the command with status 1 and this text, or with this template filled."""

    exit_code = 1

    def __init__(self, text: str, /, **values: object) -> None:
        super().__init__(shown(text) if isinstance(text, Title) else say(text, **values))

    def show(self, file: object = None) -> None:
        """Print the message to standard error, without click's `Error:` before it."""
        del file
        click.echo(self.message, err=True)


def sentence(text: str) -> str:
    """A text in the language of the terminal, with a full stop."""
    return shown(text) + say(".")


class WrongCall(click.UsageError):
    """Ends the command with status 2 and this template filled, as a wrong call."""

    def __init__(self, template: str, /, **values: object) -> None:
        super().__init__(sentence(Text(template, **values)))


_CONTROLS: Final = re.compile("[\0-\x1f\x7f-\x9f\xad\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")
_OF_FEW_VALUES: Final = ("status", "state", "source", "kind", "sign_up")
"""Columns whose values are words of ours."""
SHOWN_ONCE: Final = Text("Keep the secret, it is not shown again.")


def show(answer: object, text: str | Iterable[tuple[object, ...]], *notes: str, as_json: bool) -> None:
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
        click.echo(shown(note), err=True)


def table(items: Iterable[Any], names: str, **shown: Callable[[Any], object]) -> list[tuple[object, ...]]:
    """The rows of a table of items, below their header.

    Args:
        items: A row each.
        names: Of the columns, in order. Each is a field of the items, unless `shown` has it.
        shown: The columns that are made of several fields, or of other words.
    """
    columns = names.split()
    rows = [tuple(shown.get(name, partial(_field, name=name))(item) for name in columns) for item in items]
    return [header(*columns), *rows]


def header(*columns: str) -> tuple[str, ...]:
    """The names of columns, as a table shows them."""
    return tuple(word(name) if terminal_language() == "zh" else name.upper() for name in columns)


def print_table(rows: Iterable[tuple[object, ...]]) -> None:
    """Print rows in columns."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell + " " * (most - width(cell)) for cell, most in zip(row, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _field(item: Any, name: str) -> object:
    value = item[name] if isinstance(item, dict) else getattr(item, name)
    return word(value) if name in _OF_FEW_VALUES else value


def _cell(value: object) -> str:
    if value == " ":  # a column without a name
        return " "
    if isinstance(value, datetime):
        return to_the_minute(value)
    if isinstance(value, list | tuple):
        value = ",".join(value)
    if isinstance(value, dict):
        value = to_json(value).decode()
    return printable(None if value is None else str(value))


def printable(text: str | None) -> str:
    """A text chosen by a user, without characters that control a terminal; `-` if it shows nothing."""
    printed = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text or "")
    return printed if clean_text(printed) else "-"


def state_of(it: Any) -> str:
    """Whether an app or a webhook is used."""
    return say("enabled") if it.is_enabled else say("disabled")


def to_the_minute(time: datetime | None) -> str:
    """A time to the minute, in the zone of this machine."""
    return "-" if time is None else time.astimezone().isoformat(timespec="minutes")


def to_the_second(time: datetime | None) -> str:
    """A time to the second, in the zone of this machine."""
    return "-" if time is None else time.astimezone().isoformat(timespec="seconds")


Command = TypeVar("Command", bound=Callable[..., object])

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def confirm(question: Callable[[], str], *, yes: bool) -> None:
    """Ask for confirmation on the terminal, unless `yes`. Raises: click.UsageError without a terminal, click.Abort."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise WrongCall("without a terminal, --yes must be given")
    click.confirm(question(), abort=True, err=True)


def checked(check: Callable[[Any], Any], rule: str = "") -> Callable[[click.Context, click.Parameter, Any], Any]:
    """An option's callback: what `check` makes of the given value.

    Where that raises a KeyError, OSError or ValueError, the call is refused with its text, or with this rule.
    """

    def callback(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        try:
            return None if value is None else check(value)
        except (KeyError, OSError, ValueError) as exc:
            own = exc.text if isinstance(exc, TextError) else why_not(value, exc) if isinstance(exc, OSError) else rule
            raise click.BadParameter(sentence(Text(own))) from None

    return callback


def stripped(text: str) -> str:
    """A text without the spaces around it."""
    try:
        text.encode()
    except UnicodeEncodeError:  # an argument that is not UTF-8 has surrogates
        raise WrongValue("must be UTF-8") from None
    return text.strip()


text_option = checked(stripped)
time_option = checked(
    TypeAdapter(Time).validate_python, "must be a time with its offset, like 2026-11-27T18:00:00+08:00"
)
_cursor = checked(id_in_cursor, "must be the next_cursor of a page")


def page_options(command: Command) -> Command:
    """Add `--limit` and `--cursor`."""
    command = click.option("--cursor", callback=_cursor, help="The next_cursor of the page before.")(command)
    return click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)(command)


def more(next_cursor: str | None) -> list[str]:
    """The note below a page that is not the last."""
    return [] if next_cursor is None else [say("There are more: --cursor {cursor}", cursor=next_cursor)]


def why_not(file: object, exc: OSError) -> Title:
    """Why a file cannot be used."""
    return Text("{name}: {rule}", name=file, rule=os_reason(exc))


def read_picture(given: str) -> str:
    """The picture in this file, as a `data:` URL; empty for what clears one: default, or an empty text."""
    try:
        return "" if given in ("default", "") else picture_url(Path(given).read_bytes())
    except WrongValue as exc:
        raise WrongValue("{name}: {rule}", name=given, rule=exc.text) from None


def field_option(
    name: str, shape: Mapping[str, Any], *, option: str, clear: str | None = None, **changed: Any
) -> Callable[[Command], Command]:
    """The option for a field of this JSON schema: a switch, a choice, a text, a list with commas, or JSON.

    Args:
        name: Of the field, and of the command's argument.
        shape: The field's schema.
        option: The option's own name.
        clear: What clears the field, where an option can: its value is an empty text then.
        changed: What differs from the option that the schema makes.
    """
    kinds = {each["type"]: each for each in shape.get("anyOf", (shape,))}
    choices = kinds.get("string", {}).get("enum", ())
    words = {"app_id": "APP_ID", "uri": "URI", "domain": "DOMAIN"}
    metavars = {"object": "JSON", "integer": "N", "array": "A,B", "string": "TEXT", "boolean": None}

    def value(given: str) -> object:
        if given == clear:
            return ""
        if "array" in kinds:
            return [part.strip() for part in given.split(",") if part.strip()]
        return given if "string" in kinds else from_json(given)

    text = re.sub("[Nn]ull:", f"{clear}:" if clear else "by default", shape["description"]).replace("`", "")
    made: dict[str, Any] = {
        "help": text + (" Repeatable." if changed.get("multiple") else ""),
        "type": click.Choice([*choices, *([clear] if clear else [])]) if choices else None,
        "metavar": next((word for part, word in words.items() if part in name), metavars[next(iter(kinds))]),
        "callback": checked(value, 'must be JSON, such as 2 or {"role": "authenticated"}, or default'),
    }
    if choices:
        del made["metavar"]
    if "boolean" in kinds:
        made |= {"is_flag": True, "default": None, "callback": None}
    return click.option(option, name, **made | changed)
