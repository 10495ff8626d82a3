"""The options of commands: checks of their values, and options that come from the schema of an operation."""

import re
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json

from wxauth.cli.printing import sentence
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.settings.logos import picture_url
from wxauth.terminal import TextError, WrongValue, os_reason
from wxauth.web.schemas import PageQuery, Time, id_in_cursor


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
