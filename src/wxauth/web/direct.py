"""Routes that are declared, documented and overridden as FastAPI's own, and whose dependencies are flattened once.

With FastAPI's own routes in their place, a login took 1.30 times as much CPU and `GET /v1/me` 2.1 times (medians of
five rounds in turn, 32 clients). They would replace these if FastAPI solved the dependencies of a route once, and not
for each request. See docs/contribute/decisions/0006-flattened-dependencies.md.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import NoneType
from typing import Any, Final, Required, TypeVar, Unpack, get_args, get_origin, get_type_hints

from fastapi import FastAPI
from fastapi.params import Query
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from wxauth.core.settings import Settings
from wxauth.errors import PayloadTooLarge
from wxauth.i18n import Text
from wxauth.web.answers import Entails, Failure, example_of, failures_of
from wxauth.web.dependencies import Argument, Plan, entailed_by, metadata_of, services_of
from wxauth.web.edge import CONTROL_CHARACTERS
from wxauth.web.schemas import check_place, errors_of, invalid_request, json_form, read_anyway
from wxauth_guard.errors import InvalidRequest, WxAuthError

_NO_STORE = (b"cache-control", b"no-store")
_JSON = (b"content-type", b"application/json")
# For caches that ignore Cache-Control, as panels configure nginx: each caller's answers are then kept apart.
_VARY = (b"vary", b"Authorization")

_FORM: Final = re.compile(r"application/x-www-form-urlencoded|multipart/form-data", re.IGNORECASE)

_FAILURE_KEY: Final = "wxauth.failure"


class DirectRoute(APIRoute):
    """Serves an endpoint whose parameters are a body model, a query model, path parameters, the request, dependencies.

    The dependencies are FastAPI's own, with sub-dependencies, `yield`, and the app's `dependency_overrides`. They and
    the other parameters get their values in the order of their declaration; a `Plan` is made of them once.

    The body is validated from its bytes, with the settings in its context, whatever its Content-Type is. An empty body
    is None, if the parameter may be None. A Response that the endpoint returns is sent as it is. Any other value is
    sent as JSON; a test compares it with its model.

    The documentation is combined from the declarations: the failures of the operation, of its parameters, and of the
    dependencies that these take; the examples of the answer's fields; the credentials that a dependency requires.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        summary: Text | None = None,
        failures: Sequence[Failure] = (),
        **declared: Any,
    ) -> None:
        hints = get_type_hints(endpoint, include_extras=True)
        answer = hints.pop("return", None)
        if answer is NoneType or answer == Response | None:  # usually nothing, and sometimes a response of its own
            declared.setdefault("status_code", 204)
            declared.setdefault("response_model", None)
        elif isinstance(answer, type) and issubclass(answer, Response):
            declared.setdefault("response_class", answer)
        super().__init__(path, endpoint, summary=summary, **declared)
        if self.dependencies or self.status_code not in (None, 200, 204):
            raise TypeError(f"{self.path}: a direct route takes its dependencies as parameters, and no other status")
        dependencies = {each.name for each in self.dependant.dependencies}
        self._arguments = {
            name: _path_argument(name, hint) if name in self.param_convertors else _argument(hint)
            for name, hint in hints.items()
            if name not in dependencies
        }
        self.plan = Plan(self.dependant, self._arguments)
        self.query_names = _query_names(hints.values())
        """The query parameters that the operation has."""
        if self.include_in_schema:
            self._document(list(entailed_by(self.dependant, self._arguments)), failures)
        self.app = self._serve

    async def answer_to(
        self, request: Request, plan: Plan, stack: AsyncExitStack | None = None
    ) -> Response | bytes | None:
        """A response, JSON, or nothing. `stack` is for what a plan does after its calls, if it yields."""
        answer = await plan.run(request, stack)
        return answer if answer is None or isinstance(answer, Response) else to_json(answer)

    def _document(self, entailed: Sequence[Entails], failures: Sequence[Failure]) -> None:
        """Add the documentation of parameters and answer to that of the operation itself."""
        of_path = [InvalidRequest(CONTROL_CHARACTERS, status=400)] if self.param_convertors else []
        answers = failures_of(*of_path, *(failure for each in entailed for failure in each.failures), *failures)
        if self.response_model is not None and 200 not in self.responses:
            answers[200] = {"content": {"application/json": {"example": example_of(self.response_model)}}}
        for status, declared in self.responses.items():  # besides a page of this status, there may be problems
            content = {**answers.get(status, {}).get("content", {}), **declared.get("content", {})}
            answers[status] = {**declared, "content": content} if content else declared
        self.responses = answers
        security = next((each.security for each in entailed if each.security), None)
        if security is not None:
            self.openapi_extra = {"security": security, **(self.openapi_extra or {})}

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _FAILURE_KEY in scope:
            raise scope.pop(_FAILURE_KEY)
        request, plan, overrides = DirectRequest(scope, receive), self.plan, scope["app"].dependency_overrides
        if overrides:
            plan = Plan(self.dependant, self._arguments, overrides)
        async with AsyncExitStack() as stack:
            answer = await self.answer_to(request, plan, stack)
        await _send(answer, scope, receive, send)


class DirectRequest(Request):
    """A request whose body comes past Starlette's generator, which takes longer than to validate it."""

    _whole: bytes | None = None

    async def body(self) -> bytes:
        """The body. Raises: ClientDisconnect."""
        if self._whole is None:
            parts, is_whole = [], False
            while not is_whole:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                is_whole = not message.get("more_body")
            self._whole = b"".join(parts)
        return self._whole


Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Declared(TypedDict, total=False):
    """What an operation declares itself. The rest of its documentation is read from its parameters and its answer."""

    summary: Required[Text]
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

    def put(self, path: str, **declared: Unpack[Declared]) -> Callable[[Endpoint], Endpoint]:
        """Add an operation that replaces something."""
        return self._add("PUT", path, declared)

    def patch(self, path: str, **declared: Unpack[Declared]) -> Callable[[Endpoint], Endpoint]:
        """Add an operation that changes something."""
        return self._add("PATCH", path, declared)

    def delete(self, path: str, **declared: Unpack[Declared]) -> Callable[[Endpoint], Endpoint]:
        """Add an operation that removes something."""
        return self._add("DELETE", path, declared)

    def hidden(self, path: str, *, method: str = "GET") -> Callable[[Endpoint], Endpoint]:
        """Add a route that only our own pages use, and that is not documented."""
        return self._add(method, path, {"include_in_schema": False})

    def _add(self, method: str, path: str, declared: Mapping[str, Any]) -> Callable[[Endpoint], Endpoint]:
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

    Without it, `GET /v1/me` takes 1.14 times as much CPU in the process (medians of forty rounds in turn, twice). Below
    1.1 times, it can be removed.

    A failure is raised again inside FastAPI, whose handlers answer it. FastAPI also serves all other requests, all
    requests under an issuer's path, and in a test everything while there are `dependency_overrides`.

    Args:
        routes: Those that are called so.
    """

    def __init__(self, app: FastAPI, routes: "DirectRoutes") -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = None
        if scope["type"] == "http" and not scope.get("root_path") and not self._app.dependency_overrides:
            route = self._routes.find(scope)
        if route is not None:
            scope["app"], scope["route"] = self._app, route
            try:
                answer = await route.answer_to(DirectRequest(scope, receive), route.plan)
            except Exception as exc:
                scope[_FAILURE_KEY] = exc
            else:
                await _send(answer, scope, receive, send)
                return
        await self._app(scope, receive, send)


class DirectRoutes:
    """The routes of a shortcut: all direct ones but those whose dependencies yield, and those that others hide.

    Of those with path parameters only the ones whose path `also` has, which are found by their patterns.
    """

    def __init__(self, routes: Sequence[BaseRoute], *, also: Collection[str] = ()) -> None:
        self._by_path: dict[tuple[str, str], DirectRoute] = {}
        self._by_pattern: list[DirectRoute] = []
        for place, route in enumerate(routes):
            if not isinstance(route, DirectRoute) or route.plan.yields:
                continue
            if route.path in also:
                self._by_pattern.append(route)
            elif not route.param_convertors:
                earlier = (each for each in routes[:place] if isinstance(each, Route))
                taken = {m for each in earlier if each.path_regex.match(route.path) for m in each.methods or ()}
                self._by_path |= {(method, route.path): route for method in (route.methods or set()) - taken}

    def find(self, scope: Scope) -> DirectRoute | None:
        """The route of a request, whose path parameters are put into the scope."""
        method, path = scope["method"], scope["path"]
        if (found := self._by_path.get((method, path))) is not None:
            return found
        for route in self._by_pattern:
            if method in (route.methods or ()) and (match := route.path_regex.match(path)):
                scope["path_params"] = match.groupdict()
                return route
        return None


def operation_id(route: APIRoute) -> str:
    """The default operationId in the OpenAPI document: the endpoint's name."""
    return route.name


def check_query_names(connection: HTTPConnection) -> None:
    """Check that a request has no query parameter that its direct route lacks. Raises: InvalidRequest."""
    if not connection.scope["query_string"]:
        return
    known: Sequence[str] = connection.scope["route"].query_names
    if unknown := sorted(connection.query_params.keys() - set(known)):
        message = f"Must be one of {', '.join(known)}" if known else "Must be absent: there are no parameters"
        raise invalid_request({"loc": (name,), "msg": message, "type": "unknown"} for name in unknown)


async def _send(answer: Response | bytes | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Send an endpoint's answer: a response, JSON, or nothing."""
    if isinstance(answer, Response):
        await answer(scope, receive, send)
        return
    if answer is None:
        await send({"type": "http.response.start", "status": 204, "headers": [_NO_STORE]})
        await send({"type": "http.response.body"})
        return
    headers = [_NO_STORE, _VARY, _JSON, (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def _argument(hint: Any) -> Argument:
    if hint is Request:
        return Argument(_itself, Entails())
    kinds, metadata = get_args(hint) or (hint,), metadata_of(hint)
    if isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel):
        if any(isinstance(meta, Query) for meta in metadata):
            return _query(kinds[0])
        return _body(kinds[0], may_be_empty=NoneType in kinds)
    raise TypeError(f"a direct route cannot take {hint}")


def _path_argument(name: str, hint: Any) -> Argument:
    validate = TypeAdapter(hint).validate_strings

    async def read(request: Request) -> Any:
        return _valid(validate, request.path_params[name], name=name)

    return Argument(read, Entails(failures=_refusals(validate, ["?"], name=name)))


def _query(model: type[BaseModel]) -> Argument:
    validate = model.__pydantic_validator__.validate_python
    lists = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is list}

    async def read(request: Request) -> Any:
        given = request.query_params
        names = model.model_fields.keys() & given.keys()
        return _valid(validate, {name: given.getlist(name) if name in lists else given[name] for name in names})

    wrong = ({name: ["?"] if name in lists else "?"} for name in model.model_fields)
    return Argument(read, Entails(failures=_refusals(validate, wrong)))


def _query_names(hints: Iterable[Any]) -> Sequence[str]:
    """The query parameters of an endpoint with these parameters."""
    queries = [get_args(hint)[0] for hint in hints if any(isinstance(meta, Query) for meta in metadata_of(hint))]
    return sorted(name for model in queries for name in model.model_fields)


def _valid(validate: Callable[[Any], Any], given: Any, *, name: str | None = None) -> Any:
    """What is validated: the parameter with this name, or all that a model has. Raises: InvalidRequest."""
    try:
        return validate(given)
    except ValidationError as exc:
        errors = errors_of(exc)
    raise invalid_request(errors if name is None else [{**error, "loc": (name,)} for error in errors])


def _refusals(validate: Callable[[Any], Any], wrong: Iterable[Any], *, name: str | None = None) -> Sequence[Failure]:
    """The error for the first of these values that is refused; empty if all are taken."""
    for value in wrong:
        try:
            _valid(validate, value, name=name)
        except WxAuthError as exc:
            return (exc.with_traceback(None),)
    return ()


async def _itself(request: Request) -> Request:
    return request


def _body(model: type[BaseModel], *, may_be_empty: bool) -> Argument:
    validate = model.__pydantic_validator__.validate_json

    async def read(request: Request) -> BaseModel | None:
        body = await request.body()
        if may_be_empty and not body:
            return None
        settings = (await services_of(request)).settings
        context = {Settings: settings}
        try:
            checked: BaseModel = validate(body, context=context)
            return checked
        except ValidationError as exc:
            errors = errors_of(exc)
        if errors[0]["type"] == "json_invalid" and _FORM.match(request.headers.get("content-type", "")):
            form = json_form(model)
            raise InvalidRequest.of("body", f"This is a form: send {form} as JSON, with Content-Type: application/json")
        headers = (name.removeprefix("x-").removeprefix("wx-").replace("-", "_") for name in request.headers)
        check_place(model, errors, {*request.query_params, *headers})
        return read_anyway(model, body, errors, context)

    return Argument(read, Entails(failures=(*_refusals(validate, [b"{}", b"0"]), PayloadTooLarge)))
