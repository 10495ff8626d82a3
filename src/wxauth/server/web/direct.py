"""Routes that are declared and documented with FastAPI, but served without its dependency solver.

With FastAPI's own routes in their place, a login took 1.30 times as much CPU and `GET /v1/me` 2.1 times; with direct
routes, but without `Shortcut`, 1.19 and 1.22 times (medians of five rounds in turn, 32 clients). FastAPI's own routes
would replace them if it resolved the dependencies of a route once, and not for each request.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from types import NoneType
from typing import (
    Annotated,
    Any,
    Final,
    NamedTuple,
    Required,
    TypeVar,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
)

from fastapi.params import Depends, Query
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import TypedDict

from wxauth.errors import FieldError, InvalidRequest, PayloadTooLarge, Title, WxAuthError
from wxauth.server.web.answers import Entails, Failure, example_of, failures_of

_NO_STORE = (b"cache-control", b"no-store")
_JSON = (b"content-type", b"application/json")

_FORM: Final = re.compile(r"application/x-www-form-urlencoded|multipart/form-data", re.IGNORECASE)
_NO_FORM: Final = "This is a form: send JSON, with Content-Type: application/json"

_MAX_ERRORS: Final = 20
"""How many errors of one request are reported. Some bodies may have any fields, and the log repeats them."""
_LONGEST_FIELD: Final = 64
"""Characters of a field's name that are reported."""
_FAILURE_KEY: Final = "wxauth.failure"

Argument = Callable[[Request], Awaitable[Any]]


class _Parameter(NamedTuple):
    """How a parameter gets its value, and what it adds to the documentation."""

    argument: Argument
    entails: Entails


class DirectRoute(APIRoute):
    """Serves an endpoint whose parameters are a body model, a query model, path parameters, the request, dependencies.

    FastAPI resolves the dependencies anew for each request, which costs several times as much as everything else that
    it does. Here they are called one after the other, in the order of the parameters. A dependency takes only the
    request.

    The body is validated from its bytes whatever its Content-Type is, with the services as context. An empty body is
    None, if the parameter may be None. A Response that the endpoint returns is sent as it is. Any other value is sent
    as JSON; a test compares it with its model.

    The documentation is combined from the declarations: the failures of the operation and of its parameters, the
    examples of the answer's fields, and the credentials that a dependency requires.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        summary: Title | None = None,
        failures: Sequence[Failure] = (),
        **declared: Any,
    ) -> None:
        hints = get_type_hints(endpoint, include_extras=True)
        answer = hints.pop("return", None)
        if answer is NoneType:
            declared.setdefault("status_code", 204)
        elif isinstance(answer, type) and issubclass(answer, Response):
            declared.setdefault("response_class", answer)
        self.title = summary
        super().__init__(path, endpoint, summary=None if summary is None else summary.en, **declared)
        if self.dependencies or self.status_code not in (None, 200, 204):
            raise TypeError(f"{self.path}: a direct route takes its dependencies as parameters, and no other status")
        parameters = [
            (name, _path_parameter(name, hint) if self._is_in_path(name, hint) else _parameter(hint))
            for name, hint in hints.items()
        ]
        arguments = [(name, parameter.argument) for name, parameter in parameters]
        if self.include_in_schema:
            self._document([parameter.entails for _, parameter in parameters], failures)

        async def answer_to(scope: Scope, receive: Receive) -> Response | bytes | None:
            request = Request(scope, receive)
            values = {name: await argument(request) for name, argument in arguments}
            answer = await endpoint(**values)
            return answer if answer is None or isinstance(answer, Response) else to_json(answer)

        self.answer_to = answer_to
        self.app = self._serve

    def _document(self, entailed: Sequence[Entails], failures: Sequence[Failure]) -> None:
        """Add the documentation of parameters and answer to that of the operation itself."""
        answers = failures_of(*(failure for each in entailed for failure in each.failures), *failures)
        if self.response_model is not None and 200 not in self.responses:
            answers[200] = {"content": {"application/json": {"example": example_of(self.response_model)}}}
        self.responses = {**answers, **self.responses}
        security = next((each.security for each in entailed if each.security), None)
        if security is not None:
            self.openapi_extra = {"security": security, **(self.openapi_extra or {})}

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _FAILURE_KEY in scope:
            raise scope.pop(_FAILURE_KEY)
        await _send(await self.answer_to(scope, receive), scope, receive, send)

    def _is_in_path(self, name: str, hint: Any) -> bool:
        # A dependency may have the name of a path parameter. It then reads the parameter itself.
        return name in self.param_convertors and _dependency(hint) is None


Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Declared(TypedDict, total=False):
    """What an operation declares itself. The rest of its documentation comes from its parameters and its answer."""

    summary: Required[Title]
    failures: Sequence[Failure]
    tag: str
    operation_id: str
    """By default, the endpoint's name."""
    response_model: Any
    response_class: type[Response]
    responses: dict[int | str, dict[str, Any]]
    openapi_extra: dict[str, Any]


class Router:
    """The operations of a file.

    Args:
        tag: Their heading in the documentation, unless an operation has its own.
    """

    def __init__(self, tag: str) -> None:
        self.routes: list[DirectRoute] = []
        self._tag = tag

    def get(self, path: str, **declared: Unpack[Declared]) -> Callable[[Endpoint], Endpoint]:
        """Add an operation that reads."""
        return self._add("GET", path, declared)

    def post(self, path: str, **declared: Unpack[Declared]) -> Callable[[Endpoint], Endpoint]:
        """Add an operation that creates or does something."""
        return self._add("POST", path, declared)

    def patch(self, path: str, **declared: Unpack[Declared]) -> Callable[[Endpoint], Endpoint]:
        """Add an operation that changes something."""
        return self._add("PATCH", path, declared)

    def delete(self, path: str, **declared: Unpack[Declared]) -> Callable[[Endpoint], Endpoint]:
        """Add an operation that removes something."""
        return self._add("DELETE", path, declared)

    def hidden(self, path: str) -> Callable[[Endpoint], Endpoint]:
        """Add a GET route that only our own pages use, and that is not documented."""

        def add(endpoint: Endpoint) -> Endpoint:
            self.routes.append(DirectRoute(path, endpoint, methods=["GET"], include_in_schema=False))
            return endpoint

        return add

    def _add(self, method: str, path: str, declared: Declared) -> Callable[[Endpoint], Endpoint]:
        options: dict[str, Any] = {**declared}
        tag = options.pop("tag", self._tag)

        def add(endpoint: Endpoint) -> Endpoint:
            route = DirectRoute(
                path, endpoint, methods=[method], tags=[tag], generate_unique_id_function=operation_id, **options
            )
            self.routes.append(route)
            return endpoint

        return add


class Shortcut:
    """Calls direct routes past FastAPI, whose nine layers cost as much as making a token.

    A failure is raised again inside FastAPI, whose handlers answer it. FastAPI also serves all other requests, and all
    requests under an issuer's path.

    Args:
        routes: The routes by method and path, as `direct_routes` returns them.
    """

    def __init__(self, app: ASGIApp, routes: Mapping[tuple[str, str], DirectRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = None
        if scope["type"] == "http" and not scope.get("root_path"):
            route = self._routes.get((scope["method"], scope["path"]))
        if route is not None:
            scope["app"], scope["route"] = self._app, route
            try:
                answer = await route.answer_to(scope, receive)
            except Exception as exc:
                scope[_FAILURE_KEY] = exc
            else:
                await _send(answer, scope, receive, send)
                return
        await self._app(scope, receive, send)


def direct_routes(routes: Sequence[BaseRoute]) -> Mapping[tuple[str, str], DirectRoute]:
    """The direct routes without path parameters, by method and path, except those that an earlier route hides."""
    found = {}
    for place, route in enumerate(routes):
        if not isinstance(route, DirectRoute) or route.param_convertors:
            continue
        # The pattern first, because `matches` is slow.
        rivals = [r for r in routes[:place] if not isinstance(r, Route) or r.path_regex.match(route.path)]
        for method in route.methods or ():
            scope = {"type": "http", "method": method, "path": route.path}
            if not any(rival.matches(scope)[0] is Match.FULL for rival in rivals):
                found[method, route.path] = route
    return found


def operation_id(route: APIRoute) -> str:
    """The default operationId in the OpenAPI document: the endpoint's name."""
    return route.name


def invalid_request(errors: Iterable[Mapping[str, Any]]) -> InvalidRequest:
    """Our own error for the first of pydantic's errors. It names the fields, never their values."""
    shown = islice(errors, _MAX_ERRORS)
    found = [FieldError(_field(error["loc"])[:_LONGEST_FIELD], _message(error)) for error in shown]
    return InvalidRequest("; ".join(f"{error.field}: {error.message}" for error in found), errors=found)


async def _send(answer: Response | bytes | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Send an endpoint's answer: a response, JSON, or nothing."""
    if isinstance(answer, Response):
        await answer(scope, receive, send)
        return
    if answer is None:
        await send({"type": "http.response.start", "status": 204, "headers": [_NO_STORE]})
        await send({"type": "http.response.body"})
        return
    headers = [_NO_STORE, _JSON, (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def _metadata(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _dependency(hint: Any) -> Argument | None:
    return next((meta.dependency for meta in _metadata(hint) if isinstance(meta, Depends)), None)


def _parameter(hint: Any) -> _Parameter:
    dependency = _dependency(hint)
    if dependency is not None and len(inspect.signature(dependency).parameters) == 1:
        entailed = next((meta for meta in _metadata(hint) if isinstance(meta, Entails)), Entails())
        return _Parameter(dependency, entailed)
    if hint is Request:
        return _Parameter(_itself, Entails())
    kinds = get_args(hint) or (hint,)
    if isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel):
        if any(isinstance(meta, Query) for meta in _metadata(hint)):
            return _query(kinds[0])
        return _body(kinds[0], may_be_empty=NoneType in kinds)
    raise TypeError(f"a direct route cannot take {hint}")


def _path_parameter(name: str, hint: Any) -> _Parameter:
    validate = TypeAdapter(hint).validate_strings

    def validated(text: str) -> Any:
        try:
            return validate(text)
        except ValidationError as exc:
            raise invalid_request([{**error, "loc": ("path", name)} for error in _errors_of(exc)]) from None

    async def argument(request: Request) -> Any:
        return validated(request.path_params[name])

    return _Parameter(argument, Entails(failures=_refusals([lambda: validated("?")])))


def _query(model: type[BaseModel]) -> _Parameter:
    validate = model.__pydantic_validator__.validate_python
    lists = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is list}

    def validated(values: Mapping[str, Any]) -> BaseModel:
        try:
            checked: BaseModel = validate(values)
            return checked
        except ValidationError as exc:
            raise invalid_request(_errors_of(exc)) from None

    async def argument(request: Request) -> BaseModel:
        given = request.query_params
        names = model.model_fields.keys() & given.keys()
        return validated({name: given.getlist(name) if name in lists else given[name] for name in names})

    wrong = ({name: ["?"] if name in lists else "?"} for name in model.model_fields)
    return _Parameter(argument, Entails(failures=_refusals(partial(validated, values) for values in wrong)))


def _refusals(tries: Iterable[Callable[[], Any]]) -> Sequence[Failure]:
    """The error of the first of these tries that fails; empty if none fails."""
    for attempt in tries:
        try:
            attempt()
        except WxAuthError as exc:
            return (exc.with_traceback(None),)
    return ()


async def _itself(request: Request) -> Request:
    return request


def _body(model: type[BaseModel], *, may_be_empty: bool) -> _Parameter:
    validate = model.__pydantic_validator__.validate_json

    async def validated(request: Request) -> BaseModel | None:
        body = await _read(request)
        if may_be_empty and not body:
            return None
        try:
            checked: BaseModel = validate(body, context=request.app.state.services)
            return checked
        except ValidationError as exc:
            errors = _errors_of(exc)
            if errors[0]["type"] == "json_invalid" and _FORM.match(request.headers.get("content-type", "")):
                raise InvalidRequest.of("body", _NO_FORM) from None
            raise invalid_request(errors) from None

    return _Parameter(validated, Entails(failures=(_refusal_of(model), PayloadTooLarge)))


def _refusal_of(model: type[BaseModel]) -> InvalidRequest:
    """The error for the body `{}`, or else for one that is no object."""
    for wrong in (b"{}", b"0"):
        try:
            model.__pydantic_validator__.validate_json(wrong)
        except ValidationError as exc:
            return invalid_request(_errors_of(exc))
    raise TypeError(f"{model} takes any body")


async def _read(request: Request) -> bytes:
    """The body, which usually comes in one message. Raises: ClientDisconnect."""
    parts: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return b"".join([*parts, body]) if parts else body
        parts.append(body)


def _errors_of(exc: ValidationError) -> list[Any]:
    return exc.errors(include_url=False, include_context=False, include_input=False)


def _field(location: tuple[str | int, ...]) -> str:
    if location[:1] in (("body",), ("query",), ("path",), ("header",)):
        location = location[1:]
    return ".".join(part for part in location if isinstance(part, str)) or "body"


def _message(error: Mapping[str, Any]) -> str:
    if error["type"] == "string_pattern_mismatch":
        return "String must have the form that the documentation gives"
    return str(error["msg"]).removeprefix("Value error, ")
