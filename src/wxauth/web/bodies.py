"""The reading of JSON bodies, which may contain incomplete characters, and the errors about bodies and parameters."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, Final, TypeVar, get_args

from pydantic import AliasChoices, BaseModel, RootModel, ValidationError
from pydantic_core import from_json

from wxauth import i_json
from wxauth.faulty_json import read_loosely
from wxauth.i18n import WrongValue
from wxauth.web.schemas import BodyWithRules, Lenient
from wxauth_guard.errors import FieldError, InvalidRequest

_MAX_ERRORS: Final = 20  # some bodies may have any number of fields, and wxauth also logs the errors
_MAX_FIELD_NAME: Final = 64  # a client can choose the names in some bodies
_NO_LONE_SURROGATES: Final = "Must not contain lone surrogates such as \\ud83d"

Model = TypeVar("Model", bound=BaseModel)
PydanticErrors = Sequence[Mapping[str, Any]]  # those of pydantic, or others with `loc`, `msg` and `type`


def read_body(model: type[Model], body: bytes) -> Model:
    """Validate a JSON body, and return it as this model (see `read_without_invalid_fields`)."""
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        return read_without_invalid_fields(model, body, errors_of(exc))


def read_without_invalid_fields(
    model: type[Model], body: bytes, errors: PydanticErrors, context: Mapping[Any, Any] | None = None
) -> Model:
    """Read an invalid body without its invalid optional fields, which are those in `Lenient.optional`.

    An incomplete character, for example at the end of text that was cut off, makes only the field that contains it
    invalid. If the model lists that field in `cleaned`, the field is accepted.

    `errors` are the body's errors, and `context` contains the `Settings` for the model's validators.
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


def check_i_json(model: type[Model], body: bytes) -> None:
    """Check the fields of a valid body that must be I-JSON, in its text, because pydantic has rounded the numbers."""
    fields = i_json_fields(model)
    values = i_json.parse(body.decode("utf-8-sig", errors="replace"))
    is_object = isinstance(values, dict) and not issubclass(model, RootModel)
    # In place of an object that repeats a name, `parse` returns a list, which `check` refuses as a whole.
    parts = [(name, values[name]) for name in values if name in fields] if is_object else [("", values)]
    errors = []
    for name, value in parts:
        try:
            i_json.check(value)
        except i_json.NotIJson as exc:
            errors.append({"loc": (name,) if name else (), "msg": exc.text, "type": "not_i_json"})
    if errors:
        raise invalid_request(errors, model)


@cache
def i_json_fields(model: type[BaseModel]) -> Collection[str]:
    """Return the names under which a body may contain fields that must be I-JSON."""

    def is_marked(hint: object) -> bool:
        return hint is i_json.IS_I_JSON or any(map(is_marked, get_args(hint)))

    marked = {
        name for name, field in model.model_fields.items() if any(map(is_marked, (field.annotation, *field.metadata)))
    }
    return {sent for sent, name in _fields_of(model).items() if name in marked}


def _validated(
    model: type[Model], values: Any, context: Mapping[Any, Any] | None
) -> tuple[Model | None, PydanticErrors]:
    # pydantic would accept lone surrogates in fields that may contain any JSON value, but PostgreSQL does not.
    errors = _surrogate_errors(values, model)
    if errors:
        return None, errors
    try:
        return model.model_validate(values, context=context), []
    except ValidationError as exc:
        return None, errors_of(exc)


def _concerned_field(error: Mapping[str, Any], fields: Mapping[str, str]) -> str:
    location = error["loc"]
    return fields.get(location[0], "") if location else ""


def json_form(model: type[BaseModel]) -> str:
    """Return the form of a body, such as `{"code": "…"}`, with its required fields, or else with the first field."""
    if issubclass(model, RootModel):
        return "{…}"
    fields = list(model.model_fields.items())
    shown = [(name, field) for name, field in fields if field.is_required()] or fields[:1]
    members = []
    for name, field in shown:
        placeholder = '"…"' if field.annotation is str else "…"
        members.append(f'"{name}": {placeholder}')
    return "{" + ", ".join(members) + "}"


def refuse_fields_sent_elsewhere(model: type[BaseModel], errors: PydanticErrors, elsewhere: Iterable[str]) -> None:
    """Refuse a request that sent a required field of the body in the query or in a header instead.

    `errors` are the body's errors. `elsewhere` are the names of the query parameters and headers.
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


def _surrogate_errors(values: object, model: type[BaseModel]) -> PydanticErrors:
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


def errors_of(exc: ValidationError) -> PydanticErrors:
    """Return pydantic's errors without the values that were sent."""
    return exc.errors(include_url=False, include_input=False)


def invalid_request(errors: Iterable[Mapping[str, Any]], model: type[BaseModel] | None = None) -> InvalidRequest:
    """Build wxauth's error, which names the fields, but never contains their values."""
    field_errors = [
        FieldError(_field_name(error["loc"])[:_MAX_FIELD_NAME], _message(error, model))
        for error in islice(errors, _MAX_ERRORS)
    ]
    detail = "; ".join(f"{error.field}: {error.message}" for error in field_errors)
    titles = model.titles if model is not None and issubclass(model, BodyWithRules) else {}
    title = next((titles[error.field] for error in field_errors if error.field in titles), None)
    return InvalidRequest(detail, errors=field_errors, title=title)


def _field_name(location: tuple[str | int, ...]) -> str:
    names = ".".join(part for part in location if isinstance(part, str))
    return names.encode(errors="replace").decode() or "body"


def _message(error: Mapping[str, Any], model: type[BaseModel] | None) -> str:
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
