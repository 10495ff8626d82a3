"""The printing of results and failures, and the options that several commands share."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial, wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json, to_json

from wxauth.i18n import SOURCE, Text, lazy_gettext as _
from wxauth.settings.logos import picture_url
from wxauth.terminal import TextError, WrongValue, localized, os_reason, terminal_language, width, word
from wxauth.texts import clean_text
from wxauth.web.schemas import Page, PageQuery, Time, id_in_cursor, items_of


def _noted(name: str, text: str) -> Callable[["Command"], "Command"]:
    """Return a switch whose value is not passed to the command.

    The functions that print or ask read it with `_is_given`.
    """

    def note(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        context.meta[name] = value

    return click.option(name, is_flag=True, expose_value=False, callback=note, help=text)


def _is_given(name: str) -> bool:
    return bool(click.get_current_context().meta.get(name))


json_option = _noted("--json", "Print JSON for programs.")
yes_option = _noted("--yes", "Don't ask for confirmation.")


def prints_json() -> bool:
    """Return whether `--json` was given, which means that a program reads the output."""
    return _is_given("--json")


class Failed(click.ClickException):
    """An error that ends the command with status 1, and prints this text."""

    def __init__(self, text: str) -> None:
        super().__init__(localized(text))

    def show(self, file: object = None) -> None:
        """Print the message to standard error, without click's `Error:` before it."""
        del file
        click.echo(self.message, err=True)


def sentence(text: str) -> str:
    """Return a text in the language of the terminal, with a full stop."""
    return localized(text) + localized(_("."))


class WrongCall(click.UsageError):
    """An error about an incorrect call. It ends the command with status 2, and prints this text."""

    def __init__(self, text: Text) -> None:
        super().__init__(sentence(text))


_CONTROLS: Final = re.compile("[\0-\x1f\x7f-\x9f\xad\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")
_OF_FEW_VALUES: Final = ("status", "state", "source", "kind", "sign_up")
"""The columns whose values are words of wxauth."""
SHOWN_ONCE: Final = _("Keep the secret in a safe place. It is shown only once.")


def echo(text: str, *, err: bool = False) -> None:
    """Print a text in the language of the terminal."""
    click.echo(localized(text), err=err)


def show(answer: object, text: str | Iterable[tuple[object, ...]], *notes: str) -> None:
    """Print a response.

    Args:
        answer: The object that is printed with `--json`.
        text: The line, or the rows of a table, that are printed without `--json`.
        notes: Further lines, which are printed to standard error without `--json`.
    """
    if prints_json():
        click.echo(to_json(answer))
        return
    if isinstance(text, str):
        echo(text)
    else:
        print_table(text)
    for note in notes:
        echo(note, err=True)


def show_items(
    found: Page[Any] | Iterable[Any], names: str, *, as_json: object = None, **shown: Callable[[Any], object]
) -> None:
    """Print a list or a page of a list, with the columns of `table`.

    `as_json` is the object that is printed with `--json`, if it is not simply the items.
    """
    page = found if isinstance(found, Page) else Page(list(found), None)
    notes = (
        [_("There are more results. To list them, add --cursor {cursor}", cursor=page.next_cursor)]
        if page.next_cursor
        else []
    )
    show(as_json or items_of(page), table(page.items, names, **shown), *notes)


def table(items: Iterable[Any], names: str, **shown: Callable[[Any], object]) -> list[tuple[object, ...]]:
    """Return the rows of a table of items, below their header.

    Args:
        items: The items, one for each row.
        names: The names of the columns, in order. Each is a field of the items, unless `shown` contains it.
        shown: Functions that return the values of the columns that are not simply fields, by the names of the columns.
    """
    columns = names.split()
    rows = [tuple(shown.get(name, partial(_field, name=name))(item) for name in columns) for item in items]
    return [header(*columns), *rows]


def header(*columns: str) -> tuple[str, ...]:
    """Return the names of columns, as a table shows them."""
    return tuple(name.upper() if terminal_language() == SOURCE else word(name) for name in columns)


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
    return printable(None if value is None else localized(value))


def printable(text: str | None) -> str:
    """Return a user's text without the characters that control a terminal.

    If no character of it is visible, return `-`.
    """
    printed = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text or "")
    return printed if clean_text(printed) else "-"


def state_of(it: Any) -> Text:
    """Return whether an app or a webhook is enabled, as a word."""
    return _("enabled") if it.is_enabled else _("disabled")


def to_the_minute(time: datetime | None, *, timespec: str = "minutes") -> str:
    """Return a time in the time zone of this machine."""
    return "-" if time is None else time.astimezone().isoformat(timespec=timespec)


to_the_second = partial(to_the_minute, timespec="seconds")
Command = TypeVar("Command", bound=Callable[..., object])


def confirm(question: Callable[[], Text]) -> None:
    """Ask for confirmation on the terminal, unless `--yes` was given.

    Raises: click.UsageError without a terminal, click.Abort.
    """
    if _is_given("--yes"):
        return
    if not sys.stdin.isatty():
        raise WrongCall(_("there is no terminal to confirm in. Add --yes"))
    click.confirm(localized(question()), abort=True, err=True)


def checked(check: Callable[[Any], Any], rule: str = "") -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return an option's callback, which replaces the given value with the result of `check`.

    If `check` raises a KeyError, OSError or ValueError, the call is refused with the error's text, or with this rule.
    """

    def callback(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        try:
            return None if value is None else check(value)
        except (KeyError, OSError, ValueError) as exc:
            own = exc.text if isinstance(exc, TextError) else why_not(value, exc) if isinstance(exc, OSError) else rule
            raise click.BadParameter(sentence(Text(own))) from None

    return callback


def stripped(text: str) -> str:
    """Return a text without the spaces around it."""
    try:
        text.encode()
    except UnicodeEncodeError:  # an argument that is not UTF-8 contains surrogates
        raise WrongValue(_("must be UTF-8")) from None
    return text.strip()


text_option = checked(stripped)
time_option = checked(
    TypeAdapter(Time).validate_python, _("must be a time with a time zone, such as 2026-11-27T18:00:00+08:00")
)
_once = checked(lambda values: [*dict.fromkeys(values)] or None)
_cursor = checked(id_in_cursor, _("must be the next_cursor of the previous page"))


def why_not(file: object, exc: OSError) -> Text:
    """Return the reason why a file cannot be used."""
    return _("{name}: {rule}", name=file, rule=os_reason(exc))


def read_picture(given: str) -> str:
    """Return the picture in this file, as a `data:` URL; empty for `default` or an empty text, which clear it."""
    try:
        return "" if given in ("default", "") else picture_url(Path(given).read_bytes())
    except WrongValue as exc:
        raise WrongValue(_("{name}: {rule}", name=given, rule=exc.text)) from None


def takes(
    model: type[BaseModel], *, clear: str | None = None, **changed: Mapping[str, Any] | None
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Add options for a model's fields. Their types, choices and texts come from the model's schema.

    The command receives `given`, the values of the options that were given, by field.

    Args:
        model: The body or the query of an operation.
        clear: The word that clears a field, if an option can do that. Its value is then an empty text. A switch has its
            opposite instead.
        changed: The differences between the options of some fields and the options from the schema. None means that the
            field has no option.
    """
    schema = model.model_json_schema()
    options = {
        name: _option_of(name, shape, schema, clear, changed.get(name) or {}, is_query=issubclass(model, PageQuery))
        for name, shape in schema["properties"].items()
        if changed.get(name, {}) is not None
    }

    def decorate(function: Callable[..., object]) -> Callable[..., object]:
        @wraps(function)
        def command(**values: Any) -> object:
            # The values are in the order in which they were given.
            given = {name: values.pop(name) for name in [*values] if name in options}
            return function(given={name: it for name, it in given.items() if it is not None}, **values)

        shown = sorted(options, key=lambda name: name in PageQuery.model_fields)
        for name in shown[::-1]:
            made = dict(options[name])
            command = click.option(made.pop("option"), name, **made)(command)
        return command

    return decorate


def _option_of(
    name: str,
    shape: Mapping[str, Any],
    schema: Mapping[str, Any],
    clear: str | None,
    changed: Mapping[str, Any],
    *,
    is_query: bool,
) -> Mapping[str, Any]:
    """Return the option for a field with this schema.

    It is a switch, a choice, a number, a text, a list with commas, or JSON.
    """
    found = [schema["$defs"][it["$ref"][8:]] if "$ref" in it else it for it in shape.get("anyOf", (shape,))]
    kinds = {it["type"]: it for it in found if "type" in it}
    text, bounds, default = kinds.get("string", {}), kinds.get("integer", {}), shape.get("default")
    choices = text.get("enum") or kinds.get("array", {}).get("items", {}).get("enum")
    words = {"app_id": "APP_ID", "uri": "URI", "domain": "DOMAIN"}
    metavars = {"object": "JSON", "integer": "N", "array": "A,B", "string": "TEXT"}

    def value(given: str) -> object:
        if is_query:
            return stripped(given) or None
        if given == clear:
            return ""
        if "array" in kinds:
            return [part.strip() for part in given.split(",") if part.strip()]
        return given if text else from_json(given)

    made: dict[str, Any] = {
        "option": f"--{name.replace('_', '-')}",
        "help": re.sub("[Nn]ull:", f"{clear}:" if clear else "Default:", shape.get("description", "")),
        "callback": checked(value, _('must be JSON, such as 2 or {"role": "authenticated"}, or default')),
    }
    if "boolean" in kinds:
        made |= {"is_flag": True, "default": None, "callback": None}
    elif choices:
        made["type"] = click.Choice([*map(str, choices), *([clear] if clear and default is None else [])])
    elif default is not None and bounds:
        made |= {"type": click.IntRange(bounds["minimum"], bounds["maximum"]), "default": default, "show_default": True}
        made["callback"] = None
    elif text.get("format") == "uuid":
        made |= {"type": click.UUID, "callback": None}
    elif text.get("format") == "date-time":
        made |= {"callback": time_option, "metavar": "TIME"}
    elif name == "cursor":
        made["callback"] = _cursor
    else:
        made["metavar"] = next((it for part, it in words.items() if part in name), metavars[next(iter(kinds))])
    if changed.get("multiple"):
        made |= {"callback": _once, "help": f"{made['help']} Repeatable."}
    made |= changed
    if "boolean" in kinds and clear is not None and "/" not in made["option"]:
        made["option"] += f"/--no-{made['option'][2:]}"
    return made | {"help": made["help"].replace("`", "")}
