"""The reading of JSON bodies, which may contain incomplete characters, and the errors about bodies and parameters."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import islice
from typing import Any, Final, TypeVar

from pydantic import AliasChoices, BaseModel, RootModel, ValidationError
from pydantic_core import from_json

from wxauth.faulty_json import read_loosely
from wxauth.terminal import WrongValue
from wxauth.web.schemas import BodyWithRules, Lenient
from wxauth_guard.errors import FieldError, InvalidRequest

_MAX_ERRORS: Final = 20
"""The largest number of errors that a response reports. Further errors are left out.

There is a limit, because some bodies may have any number of fields, and because wxauth also logs the errors.
"""
_MAX_FIELD_NAME: Final = 64
"""The largest number of characters of a field's name that an error contains."""
_NO_LONE_SURROGATES: Final = "Must not contain lone surrogates such as \\ud83d"

Model = TypeVar("Model", bound=BaseModel)


def read_body(model: type[Model], body: bytes) -> Model:
    """Validate a JSON body, and return it as this model, without its invalid optional fields (see `read_anyway`).

    Raises: InvalidRequest, if other parts are invalid.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        return read_anyway(model, body, errors_of(exc))


def read_anyway(model: type[Model], body: bytes, errors: list[Any], context: Mapping[Any, Any] | None = None) -> Model:
    """Read an invalid body without its invalid optional fields. Raises: InvalidRequest, if other parts are invalid.

    Optional fields are those in `Lenient.optional`, so only a `Lenient` model can have any. An incomplete character,
    for example at the end of text that was cut off, makes only the field that contains it invalid. If the model lists
    that field in `cleaned`, the field is accepted.

    `errors` are pydantic's errors of the body, and `context` contains the values for its validators.
    """
    # pydantic refuses lone surrogates, so it also fails to parse valid JSON that contains them.
    is_parsed = errors[0]["type"] != "json_invalid"
    optional = model.optional if issubclass(model, Lenient) else frozenset()
    if is_parsed and not optional:
        raise invalid_request(errors, model)
    try:
        # With `prune`, a value that is nested too deeply affects only its own field, and not the whole body.
        values = from_json(body) if is_parsed else read_loosely(body, prune=bool(optional))
    except ValueError:
        raise invalid_request(errors, model) from None
    checked = None
    if not is_parsed:  # pydantic has not validated the fields yet
        checked, errors = _validated(model, values, context)
    fields = _fields_of(model)
    left_out: set[str] = set()
    # One round isn't enough, because validators of the whole model run only when all fields are valid.
    while checked is None:
        invalid = {_concerned_field(error, fields) for error in errors}
        if not invalid <= optional:
            raise invalid_request(errors, model)
        left_out |= invalid
        values = {name: value for name, value in values.items() if fields.get(name) not in invalid}
        checked, errors = _validated(model, values, context)
    if left_out:
        # `left_out` is a class variable, and pydantic refuses the assignment `checked.left_out = …`.
        vars(checked)["left_out"] = dict.fromkeys(sorted(left_out), InvalidRequest.code)
    return checked


def _validated(model: type[Model], values: Any, context: Mapping[Any, Any] | None) -> tuple[Model | None, list[Any]]:
    """Return the values of a body as this model. If they are invalid, return None and the errors.

    Lone surrogates are checked first, because pydantic would accept them in fields that may contain any JSON value.
    """
    errors = _surrogate_errors(values, model)
    if errors:
        return None, errors
    try:
        return model.model_validate(values, context=context), []
    except ValidationError as exc:
        return None, errors_of(exc)


def _concerned_field(error: Mapping[str, Any], fields: Mapping[str, str]) -> str:
    """Return the name of the model's field that an error of pydantic concerns. `fields` is the result of `_fields_of`.

    For an error of an unknown field, or of the body as a whole, return an empty text, which names no optional field.
    """
    location = error["loc"]
    return fields.get(location[0], "") if location else ""


def json_form(model: type[BaseModel]) -> str:
    """Return the form of a JSON body of this model, such as `{"code": "…"}`.

    The form contains the required fields. If no field is required, it contains the first field. For a `RootModel`, the
    form is `{…}`.
    """
    if issubclass(model, RootModel):
        return "{…}"
    fields = list(model.model_fields.items())
    shown = [(name, field) for name, field in fields if field.is_required()] or fields[:1]
    members = []
    for name, field in shown:
        placeholder = '"…"' if field.annotation is str else "…"
        members.append(f'"{name}": {placeholder}')
    return "{" + ", ".join(members) + "}"


def check_place(model: type[BaseModel], errors: list[Any], elsewhere: Iterable[str]) -> None:
    """Check that the caller did not send a required field of the body in the query or in a header instead.

    `errors` are pydantic's errors of the body. `elsewhere` are the names of the query parameters and headers.

    Raises: InvalidRequest, for a field that is missing from the body and that was sent elsewhere.
    """
    fields = _fields_of(model)
    sent_elsewhere = {fields[name] for name in elsewhere if name in fields}
    for error in errors:
        if error["type"] == "missing" and fields.get(error["loc"][0]) in sent_elsewhere:
            raise InvalidRequest.of(error["loc"][0], f"Must be in the body: send {json_form(model)} as JSON")


@cache
def _fields_of(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the names of the model's fields, by the names under which a body may contain the fields."""
    fields: dict[str, str] = {}
    for name, field in model.model_fields.items():
        aliases = field.validation_alias
        names = aliases.choices if isinstance(aliases, AliasChoices) else [aliases or name]
        fields |= dict.fromkeys(map(str, names), name)
    return fields


def _surrogate_errors(values: object, model: type[BaseModel]) -> list[Any]:
    """Return errors for the fields with lone surrogates, which neither PostgreSQL nor UTF-8 accepts.

    Unknown fields are ignored, and so are the fields in the model's `cleaned`. A `RootModel` has no known fields, so
    all of its fields are checked.
    """
    if not isinstance(values, dict):
        return []
    names = list(values)
    if not issubclass(model, RootModel):
        cleaned = model.cleaned if issubclass(model, BodyWithRules) else ()
        fields = _fields_of(model)
        names = [name for name in names if name in fields and fields[name] not in cleaned]
    return [
        {"loc": (name,), "msg": _NO_LONE_SURROGATES, "type": "lone_surrogate"}
        for name in names
        if _has_lone_surrogate([name, values[name]])
    ]


def _has_lone_surrogate(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def errors_of(exc: ValidationError) -> list[Any]:
    """Return pydantic's errors without the values that were sent."""
    return exc.errors(include_url=False, include_input=False)


def invalid_request(errors: Iterable[Mapping[str, Any]], model: type[BaseModel] | None = None) -> InvalidRequest:
    """Build wxauth's error from pydantic's errors. The error names the fields, but never contains their values.

    The error gets its title from the first wrong field for which the model defines a title in `titles`.
    """
    field_errors = [
        FieldError(_field_name(error["loc"])[:_MAX_FIELD_NAME], _message(error, model))
        for error in islice(errors, _MAX_ERRORS)
    ]
    detail = "; ".join(f"{error.field}: {error.message}" for error in field_errors)
    titles = model.titles if model is not None and issubclass(model, BodyWithRules) else {}
    title = next((titles[error.field] for error in field_errors if error.field in titles), None)
    return InvalidRequest(detail, errors=field_errors, title=title)


def _field_name(location: tuple[str | int, ...]) -> str:
    """Return the names in a location, separated by dots; `body` if there are none. A lone surrogate becomes `?`."""
    names = ".".join(part for part in location if isinstance(part, str))
    return names.encode(errors="replace").decode() or "body"


def _message(error: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    """Return the message about an error of pydantic, without the value that was sent.

    If the body as a whole is wrong, the message shows the form that the body must have.
    """
    if model is not None and not error["loc"] and error["type"] in ("json_invalid", "model_type"):
        return f"{error['msg']}: send {json_form(model)} as JSON"
    # Pydantic's own messages for these errors contain a pattern, or a character of the value.
    if error["type"] == "string_pattern_mismatch":
        return "String must have the documented form"
    if error["type"] == "uuid_parsing":
        return "Must be a UUID"
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, WrongValue):
        return cause.text
    # Pydantic puts this prefix before the text of a validator's ValueError.
    return str(error["msg"]).removeprefix("Value error, ")
