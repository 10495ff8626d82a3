"""Routes that are declared and overridden like FastAPI's, but whose dependencies are analyzed only once.

With FastAPI's own routes, a login took 1.30 times as much CPU time, and `GET /v1/me` took 2.1 times as much
(medians of five alternating rounds, 32 clients). Remove this module when FastAPI analyzes the dependencies of
a route when it is declared. See docs/contribute/decisions/0006-flattened-dependencies.md.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from http import HTTPStatus
from operator import attrgetter
from types import NoneType
from typing import Any, Final, Required, TypeVar, Unpack, get_type_hints

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from wxauth.i18n import Text
from wxauth.web.answers import Entails, Failure, example_of, failures_of
from wxauth.web.bodies import invalid_request
from wxauth.web.edge import CONTROL_CHARACTERS_REFUSED
from wxauth.web.solver import Plan, arguments_of, entailed_by
from wxauth_guard.errors import InvalidRequest

_NO_STORE: Final = (b"cache-control", b"no-store")
_JSON: Final = (b"content-type", b"application/json")
# This header is for caches that ignore Cache-Control, for example nginx as control panels configure it. With this
# header, such a cache never sends one caller's response to another caller.
_VARY: Final = (b"vary", b"Authorization")

NO_PARAMETERS: Final = "Must be absent, because there are no parameters"


class DirectRoute(APIRoute):
    """A route whose endpoint can take a body model, a query model, path parameters, the request and dependencies.

    The dependencies are FastAPI's own, with sub-dependencies, `yield`, and the app's `dependency_overrides`.
    Values are taken in the order of the parameters.

    The body is parsed as JSON, whatever its Content-Type is, and validated with the settings in the validation
    context. If it may be None, an empty body becomes None. A Response that the endpoint returns is sent unchanged,
    and None is a 204. Any other value is sent as JSON, and a test compares it with its model.
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
        return_type = hints.pop("return", None)
        # The endpoint returns nothing, or sometimes a response that it has created.
        if return_type in (NoneType, Response | None):
            declared.setdefault("status_code", HTTPStatus.NO_CONTENT)
            declared.setdefault("response_model", None)
        elif isinstance(return_type, type) and issubclass(return_type, Response):
            declared.setdefault("response_class", return_type)
        super().__init__(path, endpoint, summary=summary, **declared)
        if self.dependencies or self.status_code not in (None, HTTPStatus.OK, HTTPStatus.NO_CONTENT):
            raise TypeError(
                f"{self.path}: a direct route takes dependencies only as parameters, and only status 200 or 204"
            )
        self._arguments = arguments_of(self.dependant, hints, self.param_convertors)
        self.plan = Plan(self.dependant, self._arguments)
        self.query_names = sorted(name for each in self._arguments.values() for name in each.query_names)
        if self.include_in_schema:
            self._document(list(entailed_by(self.dependant, self._arguments)), failures)
        self.app = self._serve  # in place of the handler that FastAPI has built

    def _document(self, entailed: Sequence[Entails], failures: Sequence[Failure]) -> None:
        path_failures = (
            [InvalidRequest(CONTROL_CHARACTERS_REFUSED, status=HTTPStatus.BAD_REQUEST)] if self.param_convertors else []
        )
        entailed_failures = [failure for each in entailed for failure in each.failures]
        responses = failures_of(*path_failures, *entailed_failures, *failures)
        if self.response_model is not None and HTTPStatus.OK not in self.responses:
            responses[HTTPStatus.OK] = {"content": {"application/json": {"example": example_of(self.response_model)}}}
        # An operation may return a page and problems with the same status, so the content types of both are documented.
        for status, response in self.responses.items():
            problems = responses.get(status, {}).get("content", {})
            content = {**problems, **response.get("content", {})}
            responses[status] = {**response, "content": content} if content else response
        self.responses = responses
        security = next((each.security for each in entailed if each.security), None)
        if security is not None:
            self.openapi_extra = {"security": security, **(self.openapi_extra or {})}

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = DirectRequest(scope, receive)
        overrides = scope["app"].dependency_overrides
        plan = Plan(self.dependant, self._arguments, overrides) if overrides else self.plan
        async with AsyncExitStack() as stack:
            returned = await plan.run(request, stack)
        await _send(returned, scope, receive, send)


class DirectRequest(Request):
    """A request that reads its body without Starlette's generator, which would take longer than the validation."""

    _whole_body: bytes | None = None

    async def body(self) -> bytes:
        """Return the whole body. Raises: ClientDisconnect."""
        if self._whole_body is None:
            parts, is_whole = [], False
            while not is_whole:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                is_whole = not message.get("more_body")
            self._whole_body = b"".join(parts)
        return self._whole_body


Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Declared(TypedDict, total=False):
    """The declaration of an operation. The rest of its documentation is in the endpoint."""

    summary: Required[Text]
    failures: Sequence[Failure]
    tag: str
    operation_id: str  # by default, the endpoint's name
    response_model: Any
    response_class: type[Response]
    responses: dict[int | str, dict[str, Any]]
    openapi_extra: dict[str, Any]


class Router:
    """A collection of the operations in a file. `tag` is the heading of those without one of their own."""

    def __init__(self, tag: str) -> None:
        self.routes: list[DirectRoute] = []
        self._tag = tag

    def get(self, path: str, **declared: Unpack[Declared]) -> Callable[[Endpoint], Endpoint]:
        return self._add("GET", path, declared)

    def post(self, path: str, **declared: Unpack[Declared]) -> Callable[[Endpoint], Endpoint]:
        return self._add("POST", path, declared)

    def put(self, path: str, **declared: Unpack[Declared]) -> Callable[[Endpoint], Endpoint]:
        return self._add("PUT", path, declared)

    def patch(self, path: str, **declared: Unpack[Declared]) -> Callable[[Endpoint], Endpoint]:
        return self._add("PATCH", path, declared)

    def delete(self, path: str, **declared: Unpack[Declared]) -> Callable[[Endpoint], Endpoint]:
        return self._add("DELETE", path, declared)

    def hidden(self, path: str, *, method: str = "GET") -> Callable[[Endpoint], Endpoint]:
        """Add a route that is not documented, such as a route that only wxauth's pages use."""
        return self._add(method, path, {"include_in_schema": False})

    def _add(self, method: str, path: str, declared: Mapping[str, Any]) -> Callable[[Endpoint], Endpoint]:
        options: dict[str, Any] = {**declared}
        tag = options.pop("tag", self._tag)

        def add(endpoint: Endpoint) -> Endpoint:
            route = DirectRoute(
                path, endpoint, methods=[method], tags=[tag], generate_unique_id_function=attrgetter("name"), **options
            )
            self.routes.append(route)
            return endpoint

        return add


class Shortcut:
    """Middleware that calls direct routes without FastAPI, whose layers cost as much as creating a token.

    Without this class, `GET /v1/me` takes 1.14 times as much CPU time in the process (medians of forty alternating
    rounds, measured twice). If the ratio falls below 1.1, remove the class.

    If a route fails, the app's exception handlers answer, as in FastAPI. They must not block. FastAPI serves the other
    requests. If the issuer has a path, or while a test sets `dependency_overrides`, FastAPI serves all requests.
    """

    def __init__(self, app: FastAPI, routes: "DirectRoutes") -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request through its direct route if there is one, and otherwise through FastAPI."""
        route = None
        if scope["type"] == "http" and not scope.get("root_path") and not self._app.dependency_overrides:
            route = self._routes.by_path.get((scope["method"], scope["path"])) or self._routes.find(scope)
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["app"], scope["route"] = self._app, route
        request = DirectRequest(scope, receive)
        try:
            returned = await route.plan.run(request)
        except Exception as exc:
            handlers = self._app.exception_handlers
            kind = next((kind for kind in type(exc).__mro__ if kind in handlers), None)
            if kind is None:
                raise
            response = handlers[kind](request, exc)
            if not isinstance(response, Response):
                response = await response
            await response(scope, receive, send)
            if kind is Exception:
                raise  # like Starlette, so that the edge logs the failure
            exc.__traceback__ = None  # its frames and the scope, which keeps the error, would be a reference cycle
        else:
            await _send(returned, scope, receive, send)


class DirectRoutes:
    """The direct routes that no earlier route hides, and that have no dependency with `yield`.

    Args:
        routes: All routes of the app, in the order in which FastAPI matches them.
        with_parameters: The paths of the routes to include although they have path parameters. There should be
            few, because they are matched one by one. An earlier route that matches the same requests is not
            noticed.
    """

    def __init__(self, routes: Sequence[BaseRoute], *, with_parameters: Collection[str] = ()) -> None:
        self.by_path: dict[tuple[str, str], DirectRoute] = {}
        self._by_pattern: list[DirectRoute] = []
        for place, route in enumerate(routes):
            if not isinstance(route, DirectRoute) or route.plan.needs_stack:
                continue
            if route.path in with_parameters:
                self._by_pattern.append(route)
            elif not route.param_convertors:
                hidden_methods = _methods_at(route.path, routes[:place])
                for method in (route.methods or set()) - hidden_methods:
                    self.by_path[method, route.path] = route

    def find(self, scope: Scope) -> DirectRoute | None:
        """Return the route with parameters that a request matches, and put their values into the scope."""
        method, path = scope["method"], scope["path"]
        for route in self._by_pattern:
            if method not in (route.methods or ()):
                continue
            match = route.path_regex.match(path)
            if match is not None:
                scope["path_params"] = match.groupdict()
                return route
        return None


def _methods_at(path: str, routes: Iterable[BaseRoute]) -> set[str]:
    methods: set[str] = set()
    for route in routes:
        if isinstance(route, Route) and route.path_regex.match(path):
            methods.update(route.methods or ())
    return methods


def text_parameters(*names: str) -> dict[str, Any]:
    """Return the `openapi_extra` of an endpoint that parses these query parameters itself.

    Such an endpoint declares no query model, because the response to a mistake in it would be our own one with 422,
    instead of the protocol's.
    """
    return {"parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]}


def check_query_names(connection: HTTPConnection) -> None:
    """Raise InvalidRequest for an unknown query parameter: a search with a misspelled filter would find everything."""
    if not connection.scope["query_string"]:
        return
    known: Sequence[str] = connection.scope["route"].query_names
    unknown = sorted(connection.query_params.keys() - set(known))
    if unknown:
        message = f"Must be one of {', '.join(known)}" if known else NO_PARAMETERS
        raise invalid_request({"loc": (name,), "msg": message, "type": "unknown"} for name in unknown)


async def _send(returned: Any, scope: Scope, receive: Receive, send: Send) -> None:
    if isinstance(returned, Response):
        await returned(scope, receive, send)
        return
    if returned is None:
        await send({"type": "http.response.start", "status": 204, "headers": [_NO_STORE]})
        await send({"type": "http.response.body"})
        return
    body = to_json(returned)
    headers = [_NO_STORE, _VARY, _JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
