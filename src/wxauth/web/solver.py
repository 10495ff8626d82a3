"""The solver, which turns an endpoint's parameters into a list of calls once, and runs the list for each request.

This saves time, because FastAPI itself would solve the graph of an endpoint's dependencies again for each request.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from operator import itemgetter
from types import NoneType
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin, get_type_hints

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant
from fastapi.params import Query
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request

from wxauth.errors import PayloadTooLarge
from wxauth.settings.settings import Settings
from wxauth.web.answers import Entails, Failure
from wxauth.web.bodies import (
    check_i_json,
    errors_of,
    i_json_fields,
    invalid_request,
    json_form,
    read_without_invalid_fields,
    refuse_fields_sent_elsewhere,
)
from wxauth.web.dependencies import Provided
from wxauth_guard.errors import InvalidRequest, WxAuthError

_PART: Final = -1  # the `place` of a step that reads a part instead of calling a function
_REQUEST: Final = 0
_STACK: Final = 1  # closes dependencies with `yield`
_FIRST_STEP: Final = 2  # the request and the stack exist before this step
# FastAPI can pass these values to a dependency, but a plan cannot.
_UNSUPPORTED: Final = (
    "path_params",
    "query_params",
    "header_params",
    "cookie_params",
    "body_params",
    "websocket_param_name",
    "response_param_name",
    "background_tasks_param_name",
    "security_scopes_param_name",
)

_FORM: Final = re.compile(r"application/x-www-form-urlencoded|multipart/form-data", re.IGNORECASE)

Overrides = Mapping[Callable[..., Any], Callable[..., Any]]  # an app's `dependency_overrides`


class Argument(NamedTuple):
    """A parameter of an endpoint that is neither a dependency nor the request."""

    read: Callable[..., Awaitable[Any]]  # takes the request and then the `parts`
    entails: Entails
    parts: Sequence[type] = ()
    query_names: Sequence[str] = ()


def arguments_of(dependant: Dependant, hints: Mapping[str, Any], path_names: Container[str]) -> Mapping[str, Argument]:
    """Return an endpoint's parameters that are neither dependencies nor the request, by name."""
    dependencies = {each.name for each in dependant.dependencies}
    others = {name: hint for name, hint in hints.items() if name not in dependencies and hint is not Request}
    return {
        name: _path_argument(name, hint) if name in path_names else _model_argument(hint)
        for name, hint in others.items()
    }


def _model_argument(hint: Any) -> Argument:
    # The hint is `Model`, `Model | None` or `Annotated[Model, Query()]`.
    kinds = get_args(hint) or (hint,)
    if isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel):
        if any(isinstance(meta, Query) for meta in _metadata_of(hint)):
            return _query_argument(kinds[0])
        return _body_argument(kinds[0], may_be_empty=NoneType in kinds)
    raise TypeError(f"a direct route cannot take {hint}")


def _path_argument(name: str, hint: Any) -> Argument:
    validate = TypeAdapter(hint).validate_strings

    async def read(request: Request) -> Any:
        return _validated(validate, request.path_params[name], name=name)

    return Argument(read, Entails(failures=_refusals(validate, ["?"], name=name)))


def _query_argument(model: type[BaseModel]) -> Argument:
    validate = model.__pydantic_validator__.validate_python
    lists = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is list}

    async def read(request: Request) -> Any:
        query = request.query_params
        names = model.model_fields.keys() & query.keys()
        values = {name: query.getlist(name) if name in lists else query[name] for name in names}
        return _validated(validate, values)

    samples = ({name: ["?"] if name in lists else "?"} for name in model.model_fields)
    return Argument(read, Entails(failures=_refusals(validate, samples)), query_names=tuple(model.model_fields))


def _validated(validate: Callable[[Any], Any], value: Any, *, name: str | None = None) -> Any:
    try:
        return validate(value)
    except ValidationError as exc:
        errors = errors_of(exc)
    # Inside the `except`, the new exception would keep pydantic's, which contains the values that were sent.
    if name is not None:
        errors = [{**error, "loc": (name,)} for error in errors]
    raise invalid_request(errors)


def _refusals(validate: Callable[[Any], Any], samples: Iterable[Any], *, name: str | None = None) -> Sequence[Failure]:
    """Return the error for the first sample that is refused, as an example for the documentation."""
    for value in samples:
        try:
            _validated(validate, value, name=name)
        except WxAuthError as exc:
            return (exc.with_traceback(None),)  # a traceback would keep its frames in memory
    return ()


def _body_argument(model: type[BaseModel], *, may_be_empty: bool) -> Argument:
    validate = model.__pydantic_validator__.validate_json
    must_be_i_json = bool(i_json_fields(model))

    async def read(request: Request, settings: Settings) -> BaseModel | None:
        body = await request.body()
        if may_be_empty and not body:
            return None
        context = {Settings: settings}
        try:
            checked: BaseModel = validate(body, context=context)
        except ValidationError as exc:
            errors = errors_of(exc)
        else:
            if must_be_i_json:
                check_i_json(model, body)
            return checked
        if errors[0]["type"] == "json_invalid" and _FORM.match(request.headers.get("content-type", "")):
            form = json_form(model)
            raise InvalidRequest.of(
                "body", f"Must be JSON, not a form: send {form} with Content-Type: application/json"
            )
        # A caller may have sent the field `app_id` as the header `X-WX-App-Id`.
        headers = (name.removeprefix("x-").removeprefix("wx-").replace("-", "_") for name in request.headers)
        refuse_fields_sent_elsewhere(model, errors, {*request.query_params, *headers})
        checked = read_without_invalid_fields(model, body, errors, context)
        if must_be_i_json:
            check_i_json(model, body)
        return checked

    # A model with required fields refuses an empty object. All models refuse a number.
    entails = Entails(failures=(*_refusals(validate, [b"{}", b"0"]), PayloadTooLarge))
    return Argument(read, entails, parts=(Settings,))


class _Step(NamedTuple):
    """One step of a plan: a call, which takes values of earlier steps, or a part of the service.

    Most calls take one value. Such a value is passed directly instead of in a tuple, which halves the overhead of a
    plan.
    """

    call: Callable[..., Any]  # the type of a part, or a function
    place: int  # of the value that the call takes, if it takes exactly one
    pick: Callable[[Sequence[Any]], tuple[Any, ...]] | None  # picks the values of a call that takes none or several


class Plan:
    """The steps of an endpoint in order: its parameters from left to right, each after the dependencies that it takes.

    A plain function is called directly, without a thread, so it must not block. The endpoint itself must be a coroutine
    function. The code after a `yield` runs before the response is sent, as in FastAPI with `scope="function"`.
    Therefore a client that reads the response slowly does not occupy, for example, a place in a queue.

    Raises: TypeError, if a dependency takes anything except the request and other dependencies, or is a generator that
        is not asynchronous.
    """

    def __init__(
        self, dependant: Dependant, arguments: Mapping[str, Argument], overrides: Overrides | None = None
    ) -> None:
        call = _call_of(dependant)
        self.needs_stack = False  # for code after a `yield`; the caller of `run` closes the stack
        self._path = dependant.path or ""
        self._overrides = overrides or {}
        self._steps: list[_Step] = []
        self._places: dict[Callable[..., Any], int] = {}  # of the values of dependencies and parts
        dependencies = {each.name: each for each in dependant.dependencies}
        places_by_name = {}
        for name in inspect.signature(call).parameters:
            if name in dependencies:
                places_by_name[name] = self._add_dependency(dependencies[name])
            elif name in arguments:
                argument = arguments[name]
                part_places = [self._add_part(kind) for kind in argument.parts]
                places_by_name[name] = self._add_coroutine(argument.read, (_REQUEST, *part_places))
            else:
                places_by_name[name] = _REQUEST
        self._add_coroutine(*_with_positional_arguments(call, places_by_name))
        self._has_parts = any(step.place == _PART for step in self._steps)

    async def run(self, request: Request, stack: AsyncExitStack | None = None) -> Any:
        """Run every step, and return the value of the endpoint. `stack` may be None unless `needs_stack` is true."""
        values: list[Any] = [request, stack]
        # An app whose routes need no parts, for example in a test, has no services.
        parts = request.app.state.services.parts if self._has_parts else {}
        for call, place, pick in self._steps:
            if pick is not None:
                values.append(await call(*pick(values)))
            elif place == _PART:
                values.append(parts[call])
            else:
                values.append(await call(values[place]))
        return values[-1]

    def _add_dependency(self, dependant: Dependant) -> int:
        declared = _call_of(dependant)
        if dependant.use_cache and declared in self._places:
            return self._places[declared]
        # If there are overrides, they might replace this call, so it becomes a step like any other dependency.
        if isinstance(declared, Provided) and not self._overrides:
            return self._add_part(declared.kind)
        call = self._overrides.get(declared, declared)
        called = dependant if call is declared else get_dependant(path=self._path, call=call)
        for field in _UNSUPPORTED:
            if getattr(called, field):
                raise TypeError(f"{call} takes {field}: on a direct route it takes the request and dependencies")
        places_by_name = {each.name or "": self._add_dependency(each) for each in called.dependencies}
        request_names = (called.request_param_name, called.http_connection_param_name)
        places_by_name |= {name: _REQUEST for name in request_names if name is not None}
        place = self._add_function(call, places_by_name)
        # With `use_cache=False`, a dependency is called several times. Other parameters reuse the first value.
        self._places.setdefault(declared, place)
        return place

    def _add_part(self, kind: type) -> int:
        if kind not in self._places:
            self._places[kind] = self._add_step(_Step(kind, _PART, None))
        return self._places[kind]

    def _add_function(self, call: Callable[..., Any], places_by_name: Mapping[str, int]) -> int:
        function = _function_of(call)
        positional, places = _with_positional_arguments(call, places_by_name)
        if inspect.iscoroutinefunction(function):
            return self._add_coroutine(positional, places)
        if inspect.isgeneratorfunction(function):
            raise TypeError(f"{call} yields: on a direct route it must be asynchronous")
        if not inspect.isasyncgenfunction(function):

            async def call_directly(*values: Any) -> Any:
                return positional(*values)

            return self._add_coroutine(call_directly, places)
        open_context = asynccontextmanager(positional)

        async def enter(stack: AsyncExitStack, *values: Any) -> Any:
            return await stack.enter_async_context(open_context(*values))

        self.needs_stack = True
        return self._add_coroutine(enter, (_STACK, *places))

    def _add_coroutine(self, call: Callable[..., Awaitable[Any]], places: tuple[int, ...]) -> int:
        if len(places) == 1:
            return self._add_step(_Step(call, places[0], None))
        # `run` does not use the place of a step that has `pick`.
        return self._add_step(_Step(call, 0, itemgetter(*places) if places else lambda _: ()))

    def _add_step(self, step: _Step) -> int:
        position = _FIRST_STEP + len(self._steps)
        self._steps.append(step)
        return position


def _with_positional_arguments(
    call: Callable[..., Any], places_by_name: Mapping[str, int]
) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """Make the arguments of a call positional, because a call with named arguments takes twice as long."""
    parameters = inspect.signature(call).parameters
    has_keyword_only = any(each.kind is each.KEYWORD_ONLY for each in parameters.values())
    if parameters.keys() == places_by_name.keys() and not has_keyword_only:
        return call, tuple(places_by_name[name] for name in parameters)
    # A parameter is keyword-only, or has a default value that the call keeps.
    names = tuple(places_by_name)
    return lambda *values: call(**dict(zip(names, values, strict=True))), tuple(places_by_name.values())


def entailed_by(dependant: Dependant, arguments: Mapping[str, Argument]) -> Iterator[Entails]:
    """Yield what the parameters document, each before the dependencies that it takes."""
    call = _call_of(dependant)
    hints = get_type_hints(_function_of(call), include_extras=True)
    dependencies = {each.name: each for each in dependant.dependencies}
    for name in inspect.signature(call).parameters:
        if name in arguments:
            yield arguments[name].entails
        elif name in dependencies:
            yield from (each for each in _metadata_of(hints.get(name)) if isinstance(each, Entails))
            yield from entailed_by(dependencies[name], {})


def _call_of(dependant: Dependant) -> Callable[..., Any]:
    assert dependant.call is not None  # FastAPI's own type allows None, but `get_dependant` always sets the call
    return dependant.call


def _metadata_of(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _function_of(call: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(call, partial):
        call = call.func
    if inspect.isclass(call):
        return call.__init__
    return call if inspect.isroutine(call) else type(call).__call__
