"""The options of commands: checks of their values, and options that come from the schema of an operation."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, Final

import click
from pydantic import BaseModel, TypeAdapter

from wxauth import i_json
from wxauth.cli.printing import sentence
from wxauth.i18n import Text, WrongValue, lazy_gettext as _
from wxauth.settings.apps import picture_url
from wxauth.settings.types import comma_separated
from wxauth.terminal import os_reason
from wxauth.web.pages import PageQuery, id_in_cursor
from wxauth.web.schemas import DateOrTime, Time

_METAVARS: Final = {"object": "JSON", "integer": "N", "array": "A,B", "string": "TEXT"}  # by the JSON type of the value
# Each key is a word of a field's name, or two. It takes precedence over the JSON type.
_METAVARS_BY_NAME: Final = {"app_id": "APP_ID", "uri": "URI", "domain": "DOMAIN"}
_EXAMPLE_JSON: Final = '{"role": "authenticated"}'


def checked(check: Callable[[Any], Any], rule: str = "") -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return an option's callback, which replaces each value except None with the result of `check`.

    If `check` raises a KeyError, OSError or ValueError, the command is refused. The message is `rule`, unless the error
    is a WrongValue or an OSError.
    """

    def callback(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        if value is None:
            return None
        try:
            return check(value)
        except WrongValue as exc:
            message: str = exc.text
        except OSError as exc:
            message = unusable_file(value, exc)
        except (KeyError, ValueError):  # for example, `ZoneInfo` raises a KeyError for an unknown time zone
            message = rule
        raise click.BadParameter(sentence(message))

    return callback


def stripped(text: str) -> str:
    """Return a text without the whitespace around it. Raises: WrongValue, if the text is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:  # an argument that is not UTF-8 contains surrogates
        raise WrongValue(_("must be UTF-8")) from None
    return text.strip()


# The callbacks of options check and convert the values of the options.
text_option = checked(stripped)
time_option = checked(
    TypeAdapter(Time).validate_python, _("must be a time with a time zone, such as 2026-11-27T18:00:00+08:00")
)
date_option = checked(
    TypeAdapter(DateOrTime).validate_python,
    _("must be a date such as 2026-11-27, or a time with a time zone, such as 2026-11-27T18:00:00+08:00"),
)
# click passes an empty tuple if a repeatable option was not given. `_distinct_values` returns None instead, which click
# passes for any other option that was not given.
_distinct_values = checked(lambda values: [*dict.fromkeys(values)] or None)
_cursor = checked(id_in_cursor, _("must be the next_cursor of the previous page"))


def unusable_file(file: object, exc: OSError) -> Text:
    """Return a text that names a file, and gives the reason why the file cannot be used."""
    return _("{name}: {rule}", name=file, rule=os_reason(exc))


def read_picture(path: str) -> str:
    """Return the picture in this file as a `data:` URL; empty for `default` or "", which clears the picture."""
    if path in ("default", ""):
        return ""
    try:
        return picture_url(Path(path).read_bytes())
    except WrongValue as exc:
        raise WrongValue(_("{name}: {rule}", name=path, rule=exc.text)) from None


def takes(
    model: type[BaseModel], *, clear: str | None = None, **replacements: Mapping[str, Any] | None
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Return a decorator that adds options for the fields of an operation's body or query to a command.

    The command receives `fields`, the values of the options that were given or have a default, by field.

    Args:
        model: The types, choices and texts of the options come from its schema.
        clear: The word that clears a field; None if options cannot clear fields. The word may be an empty string.
            The command receives an empty string instead of the word. A switch has a `--no-` form instead of the word.
        replacements: The arguments of `click.option` that replace the arguments from the schema, by field. None means
            that the field has no option.
    """
    is_query = issubclass(model, PageQuery)
    options = {}
    for field in _fields_of(model):
        replacements_of_field = replacements.get(field.name, {})
        if replacements_of_field is not None:
            options[field.name] = _option_of(field, clear, is_query=is_query, replacements=replacements_of_field)
    return partial(_with_options, options)


def _with_options(options: Mapping[str, Mapping[str, Any]], function: Callable[..., object]) -> Callable[..., object]:
    @wraps(function)
    def command(**values: Any) -> object:
        fields = {name: value for name, value in values.items() if name in options and value is not None}
        others = {name: value for name, value in values.items() if name not in options}
        return function(fields=fields, **others)

    # The options for paging come last in the help. click shows options in the reverse of the order in which they are
    # added.
    in_order_of_help = sorted(options, key=lambda name: name in PageQuery.model_fields)
    for name in reversed(in_order_of_help):
        arguments = dict(options[name])
        command = click.option(arguments.pop("option"), name, **arguments)(command)
    return command


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    description: str
    default: object
    types: Mapping[str, Mapping[str, Any]]  # the schemas of the values that the field accepts, by their JSON type

    @property
    def text_schema(self) -> Mapping[str, Any]:
        """The schema of the strings that the field accepts; empty if it accepts none."""
        return self.types.get("string", {})

    @property
    def choices(self) -> Sequence[object]:
        """The only possible values of the field, or of the items of its list; empty if other values are possible."""
        items = self.types.get("array", {}).get("items", {})
        return self.text_schema.get("enum") or items.get("enum") or ()


def _fields_of(model: type[BaseModel]) -> Iterator[_Field]:
    schema = model.model_json_schema()
    for name, property_schema in schema["properties"].items():
        types = {}
        for alternative in property_schema.get("anyOf", [property_schema]):
            if "$ref" in alternative:
                alternative = schema["$defs"][alternative["$ref"].removeprefix("#/$defs/")]
            if "type" in alternative:
                types[alternative["type"]] = alternative
        yield _Field(name, property_schema.get("description", ""), property_schema.get("default"), types)


def _option_of(
    field: _Field, clear: str | None, *, is_query: bool, replacements: Mapping[str, Any]
) -> Mapping[str, Any]:
    wrong_value = _('must be JSON, such as 2 or {example}, or "{word}"', example=_EXAMPLE_JSON, word=clear)
    if "integer" in field.types:
        wrong_value = _("must be a valid integer")
    arguments = {
        "option": f"--{field.name.replace('_', '-')}",
        # In a description, "Null:" introduces the meaning of an absent value. In the help, it is replaced by "Default:"
        # or, if a word that is not empty clears the field, by this word in quotation marks and "means:".
        "help": re.sub("[Nn]ull:", f'"{clear}" means:' if clear else "Default:", field.description),
        "callback": checked(partial(_value_of, field, clear=clear, is_query=is_query), wrong_value),
        **_arguments_for_type(field, clear),
    }
    if replacements.get("multiple"):
        arguments |= {"callback": _distinct_values, "help": f"{arguments['help']} Repeatable."}
    arguments |= replacements
    has_off_form = "/" in arguments["option"]  # such as --enable/--disable
    if "boolean" in field.types and clear is not None and not has_off_form:
        arguments["option"] += f"/--no-{arguments['option'].removeprefix('--')}"
    return arguments | {"help": arguments["help"].replace("`", "")}


def _arguments_for_type(field: _Field, clear: str | None) -> Mapping[str, Any]:
    if "boolean" in field.types:
        # With the default None, a switch that was not given differs from a switch that was turned off.
        return {"is_flag": True, "default": None, "callback": None}
    if field.choices:
        choices = [str(choice) for choice in field.choices]
        if clear and field.default is None:
            choices.append(clear)
        return {"type": click.Choice(choices)}
    # A number without a default can be cleared with a word, so `_value_of` parses it.
    if "integer" in field.types and field.default is not None:
        bounds = field.types["integer"]
        number = click.IntRange(bounds["minimum"], bounds["maximum"])
        return {"type": number, "default": field.default, "show_default": True, "callback": None}
    if field.text_schema.get("format") == "uuid":
        return {"type": click.UUID, "callback": None}
    if field.text_schema.get("format") == "date-time":
        return {"callback": time_option, "metavar": "TIME"}
    if field.name == "cursor":
        return {"callback": _cursor}
    for part, metavar in _METAVARS_BY_NAME.items():
        if re.search(rf"(?:^|_){part}s?(?:_|$)", field.name):
            return {"metavar": metavar}
    return {"metavar": _METAVARS[next(iter(field.types))]}  # the type that the schema lists first


# The word that clears the field becomes an empty string, and an empty parameter of a query becomes None.
def _value_of(field: _Field, value: str, *, clear: str | None, is_query: bool) -> object:
    if is_query:
        return stripped(value) or None
    if value == clear:
        return ""
    if "array" in field.types:
        return comma_separated(value)
    if field.text_schema:
        return value
    parsed = i_json.parse(value)
    i_json.check(parsed)
    return parsed
