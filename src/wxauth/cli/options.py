"""The options of commands: checks of their values, and options that come from the schema of an operation."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, Final

import click
from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json

from wxauth.cli.printing import sentence
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.settings.logos import picture_url
from wxauth.terminal import TextError, WrongValue, os_reason
from wxauth.web.schemas import PageQuery, Time, id_in_cursor

_METAVARS: Final = {"object": "JSON", "integer": "N", "array": "A,B", "string": "TEXT"}
"""The placeholder for an option's value in the help, by the JSON type of the value."""
_METAVARS_BY_NAME: Final = {"app_id": "APP_ID", "uri": "URI", "domain": "DOMAIN"}
"""The placeholder for each part of a field's name. It takes precedence over the placeholder for the type."""
_NOT_JSON: Final = _('must be JSON, such as 2 or {"role": "authenticated"}, or the word default')


def checked(check: Callable[[Any], Any], rule: str = "") -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return an option's callback, which replaces the given value with the result of `check`.

    If `check` raises a KeyError, OSError or ValueError, the call is refused with the error's text, or with `rule`.
    """

    def callback(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        try:
            return None if value is None else check(value)
        except (KeyError, OSError, ValueError) as exc:
            reason: str = rule
            if isinstance(exc, TextError):
                reason = exc.text
            elif isinstance(exc, OSError):
                reason = why_not(value, exc)
            raise click.BadParameter(sentence(Text(reason))) from None

    return callback


def stripped(text: str) -> str:
    """Return a text without the spaces around it. Raises: WrongValue, if the text is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:  # an argument that is not UTF-8 contains surrogates
        raise WrongValue(_("must be UTF-8")) from None
    return text.strip()


text_option = checked(stripped)
time_option = checked(
    TypeAdapter(Time).validate_python, _("must be a time with a time zone, such as 2026-11-27T18:00:00+08:00")
)
_distinct_values = checked(lambda values: [*dict.fromkeys(values)] or None)
_cursor = checked(id_in_cursor, _("must be the next_cursor of the previous page"))


def why_not(file: object, exc: OSError) -> Text:
    """Return a text that names a file, and gives the reason why the file cannot be used."""
    return _("{name}: {rule}", name=file, rule=os_reason(exc))


def read_picture(given: str) -> str:
    """Return the picture in this file as a `data:` URL.

    For `default` or an empty text, return an empty text, which clears the picture.

    Raises: WrongValue, OSError.
    """
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
        clear: The word that clears a field, if options can clear fields. The command then receives an empty text. A
            switch has a `--no-` form instead.
        changed: The arguments of `click.option` that replace the arguments from the schema, by field. None means that
            the field has no option.
    """
    is_query = issubclass(model, PageQuery)
    options = {
        field.name: _option_of(field, clear, is_query=is_query, changed=changed.get(field.name) or {})
        for field in _fields_of(model)
        if changed.get(field.name, {}) is not None
    }

    def decorate(function: Callable[..., object]) -> Callable[..., object]:
        @wraps(function)
        def command(**values: Any) -> object:
            # click passes the values in the order in which the options were given, and `given` keeps this order.
            given = {name: values.pop(name) for name in [*values] if name in options}
            return function(given={name: it for name, it in given.items() if it is not None}, **values)

        # The options for paging come last in the help. click shows options in the reverse of the order in which they
        # are added.
        shown = sorted(options, key=lambda name: name in PageQuery.model_fields)
        for name in reversed(shown):
            arguments = dict(options[name])
            command = click.option(arguments.pop("option"), name, **arguments)(command)
        return command

    return decorate


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a model, as its JSON schema describes it."""

    name: str
    description: str
    default: object
    types: Mapping[str, Mapping[str, Any]]
    """The schemas of the values that the field accepts, by their JSON type."""

    @property
    def text(self) -> Mapping[str, Any]:
        """The schema of the texts that the field accepts; empty if it accepts none."""
        return self.types.get("string", {})

    @property
    def choices(self) -> Sequence[object]:
        """The only possible values of the field, or of the items of its list; empty if other values are possible."""
        items = self.types.get("array", {}).get("items", {})
        return self.text.get("enum") or items.get("enum") or ()


def _fields_of(model: type[BaseModel]) -> Iterator[_Field]:
    """Yield the fields of a model, from its JSON schema, with references and alternatives resolved."""
    schema = model.model_json_schema()
    for name, shape in schema["properties"].items():
        variants = (
            schema["$defs"][it["$ref"].removeprefix("#/$defs/")] if "$ref" in it else it
            for it in shape.get("anyOf", (shape,))
        )
        types = {it["type"]: it for it in variants if "type" in it}
        yield _Field(name, shape.get("description", ""), shape.get("default"), types)


def _option_of(field: _Field, clear: str | None, *, is_query: bool, changed: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of `click.option` for a field, with `option` for the names of the option."""
    # In a description, "Null:" introduces the meaning of an absent value. In the help, it is replaced by "Default:" or,
    # if a word clears the field, by this word.
    arguments = {
        "option": f"--{field.name.replace('_', '-')}",
        "help": re.sub("[Nn]ull:", f'"{clear}" means:' if clear else "Default:", field.description),
        "callback": checked(partial(_value_of, field, clear, is_query), _NOT_JSON),
        **_type_of(field, clear),
    }
    if changed.get("multiple"):
        arguments |= {"callback": _distinct_values, "help": f"{arguments['help']} Repeatable."}
    arguments |= changed
    if "boolean" in field.types and clear is not None and "/" not in arguments["option"]:
        arguments["option"] += f"/--no-{arguments['option'].removeprefix('--')}"
    return arguments | {"help": arguments["help"].replace("`", "")}


def _type_of(field: _Field, clear: str | None) -> Mapping[str, Any]:
    """Return the arguments of `click.option` that depend on the type of the field's values."""
    bounds = field.types.get("integer", {})
    if "boolean" in field.types:
        return {"is_flag": True, "default": None, "callback": None}
    if field.choices:
        can_clear = clear and field.default is None
        return {"type": click.Choice([*map(str, field.choices), *([clear] if can_clear else [])])}
    if field.default is not None and bounds:
        number = click.IntRange(bounds["minimum"], bounds["maximum"])
        return {"type": number, "default": field.default, "show_default": True, "callback": None}
    if field.text.get("format") == "uuid":
        return {"type": click.UUID, "callback": None}
    if field.text.get("format") == "date-time":
        return {"callback": time_option, "metavar": "TIME"}
    if field.name == "cursor":
        return {"callback": _cursor}
    named = (word for part, word in _METAVARS_BY_NAME.items() if part in field.name)
    return {"metavar": next(named, _METAVARS[next(iter(field.types))])}


def _value_of(field: _Field, clear: str | None, is_query: bool, given: str) -> object:
    """Return the value of an option: a text, a list that was given with commas, or JSON.

    Return an empty text for the word that clears the field, and None for an empty parameter of a query.
    """
    if is_query:
        return stripped(given) or None
    if given == clear:
        return ""
    if "array" in field.types:
        return [part.strip() for part in given.split(",") if part.strip()]
    return given if field.text else from_json(given)
