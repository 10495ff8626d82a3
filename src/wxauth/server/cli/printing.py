"""How commands print answers, as JSON or as text, and failures; and the options that several have."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from wxauth.server.web.bodies import Time, id_in_cursor

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


SHOWN_ONCE: Final = "Keep the secret, it is not shown again. 请妥善保存，密钥不会再次显示。"


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
        click.echo(note, err=True)


def table(items: Iterable[Any], names: str, **shown: Callable[[Any], object]) -> list[tuple[object, ...]]:
    """The rows of a table of items, below their header.

    Args:
        items: A row each.
        names: Of the columns, in order. Each is a field of the items, unless `shown` has it.
        shown: The columns that are made of several fields, or of other words.
    """
    columns = names.split()
    rows = [tuple(shown[name](item) if name in shown else _field(item, name) for name in columns) for item in items]
    return [tuple(name.upper() for name in columns), *rows]


def print_table(rows: Iterable[tuple[object, ...]]) -> None:
    """Print rows in columns."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _field(item: Any, name: str) -> object:
    return item[name] if isinstance(item, dict) else getattr(item, name)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return to_the_minute(value)
    if isinstance(value, list | tuple):
        value = ",".join(value)
    if isinstance(value, dict):
        value = to_json(value).decode()
    return printable(None if value is None else str(value))


def printable(text: str | None) -> str:
    """A text chosen by a user, without characters that control a terminal; `-` if there is none."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text or "-")


def state_of(it: Any) -> str:
    """Whether an app or a webhook is used."""
    return "enabled" if it.is_enabled else "disabled"


def to_the_minute(time: datetime | None) -> str:
    """A time to the minute."""
    return "-" if time is None else time.isoformat(timespec="minutes")


def terminal_language() -> "Language":
    """The language of the terminal's user, from the locale."""
    variables = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return "zh" if next(filter(None, variables), "").lower().startswith("zh") else "en"


Command = TypeVar("Command", bound=Callable[..., object])

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def confirm(question: Callable[[], str], *, yes: bool) -> None:
    """Ask for confirmation on the terminal, unless `yes`. Raises: click.UsageError without a terminal, click.Abort."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("without a terminal, --yes must be given. 非终端环境须加 --yes。")
    click.confirm(question(), abort=True, err=True)


def checked(check: Callable[[Any], Any], rule: str = "") -> Callable[[click.Context, click.Parameter, Any], Any]:
    """An option's callback: what `check` makes of the given value.

    Where that raises a KeyError, OSError or ValueError, the call is refused with the rule, or with the error's text.
    """

    def callback(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        try:
            return None if value is None else check(value)
        except (KeyError, OSError, ValueError) as exc:
            raise click.BadParameter(rule or f"{exc}.") from None

    return callback


def stripped(text: str) -> str:
    """A text without the spaces around it."""
    try:
        text.encode()
    except UnicodeEncodeError:  # an argument that is not UTF-8 has surrogates
        raise click.BadParameter("must be UTF-8.") from None
    return text.strip()


text_option = checked(stripped)
time_option = checked(
    TypeAdapter(Time).validate_python, "must be a time with its offset, like 2026-11-27T18:00:00+08:00."
)
_cursor = checked(id_in_cursor, "must be the next_cursor of a page.")


def page_options(command: Command) -> Command:
    """Add `--limit` and `--cursor`."""
    command = click.option("--cursor", callback=_cursor, help="The next_cursor of the page before.")(command)
    return click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)(command)


def more(next_cursor: str | None) -> list[str]:
    """The note below a page that is not the last."""
    return [] if next_cursor is None else [f"There are more: --cursor {next_cursor} 还有更多。"]


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
        "callback": checked(value, 'must be JSON, such as 2 or {"role": "authenticated"}, or default.'),
    }
    if choices:
        del made["metavar"]
    if "boolean" in kinds:
        made |= {"is_flag": True, "default": None, "callback": None}
    return click.option(option, name, **made | changed)
