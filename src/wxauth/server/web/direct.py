"""A route class for the hot routes: declared and documented as FastAPI's, but without FastAPI's dependency solver."""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from fastapi.params import Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from wxauth.errors import FieldError, InvalidRequest

_NO_STORE = (b"cache-control", b"no-store")
_JSON = (b"content-type", b"application/json")

_FORM: Final = re.compile(r"application/x-www-form-urlencoded|multipart/form-data", re.IGNORECASE)
_NO_FORM: Final = "This is a form: send JSON, with Content-Type: application/json"

_FAILURE_KEY: Final = "wxauth.failure"

Argument = Callable[[Request], Awaitable[Any]]


class DirectRoute(APIRoute):
    """Serves an endpoint whose parameters are a body model, path parameters, the request, and dependencies on it.

    FastAPI solves dependencies anew for each request, which costs several times as much as all else that it does. Here
    the dependencies are called one after the other. The body is validated from its bytes, with the services as context,
    whatever its Content-Type says. An empty body is None, if the endpoint takes None. If the endpoint returns a
    Response, that is sent. Any other value is written as JSON; a test compares it with its model.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.dependencies or self.status_code not in (None, 200, 204):
            raise TypeError(f"{self.path}: a direct route takes its dependencies as parameters, and no other status")
        endpoint = self.endpoint
        hints = get_type_hints(endpoint, include_extras=True)
        hints.pop("return", None)
        arguments = [
            (name, _path_parameter(name, hint) if self._is_in_path(name, hint) else _argument(hint))
            for name, hint in hints.items()
        ]

        async def answer_to(scope: Scope, receive: Receive) -> Response | bytes | None:
            request = Request(scope, receive)
            values = {name: await argument(request) for name, argument in arguments}
            answer = await endpoint(**values)
            return answer if answer is None or isinstance(answer, Response) else to_json(answer)

        self.answer_to = answer_to
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _FAILURE_KEY in scope:
            raise scope.pop(_FAILURE_KEY)
        await _say(await self.answer_to(scope, receive), scope, receive, send)

    def _is_in_path(self, name: str, hint: Any) -> bool:
        # A dependency may have the name of a path parameter, which it then reads by itself.
        return name in self.param_convertors and _dependency(hint) is None


class Shortcut:
    """Leads requests straight to direct routes without path parameters. FastAPI's nine layers cost as much as a token.

    A failure is raised once more within FastAPI, where its handlers answer it. All else is FastAPI's from the start,
    also all requests under an issuer's path.

    Args:
        app: The app.
        routes: Its routes.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = dict(_direct_ones(routes))

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
                await _say(answer, scope, receive, send)
                return
        await self._app(scope, receive, send)


def operation_id(route: APIRoute) -> str:
    """The name of an operation in the OpenAPI document: the endpoint's name."""
    return route.name


def invalid_request(errors: Iterable[Mapping[str, Any]]) -> InvalidRequest:
    """Our own failure for pydantic's errors. It names the fields, never their values."""
    found = [FieldError(_field(error["loc"]), _message(error)) for error in errors]
    return InvalidRequest("; ".join(f"{error.field}: {error.message}" for error in found), errors=found)


def _direct_ones(routes: Sequence[BaseRoute]) -> Iterator[tuple[tuple[str, str], DirectRoute]]:
    """The direct routes without path parameters, unless a route before them takes their requests."""
    for place, route in enumerate(routes):
        if not isinstance(route, DirectRoute) or route.param_convertors:
            continue
        # By the pattern first: `matches` builds much for each.
        rivals = [r for r in routes[:place] if not isinstance(r, Route) or r.path_regex.match(route.path)]
        for method in route.methods or ():
            scope = {"type": "http", "method": method, "path": route.path}
            if not any(rival.matches(scope)[0] is Match.FULL for rival in rivals):
                yield (method, route.path), route


async def _say(answer: Response | bytes | None, scope: Scope, receive: Receive, send: Send) -> None:
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


def _dependency(hint: Any) -> Argument | None:
    metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((meta.dependency for meta in metadata if isinstance(meta, Depends)), None)


def _argument(hint: Any) -> Argument:
    dependency = _dependency(hint)
    if dependency is not None and len(inspect.signature(dependency).parameters) == 1:
        return dependency
    if hint is Request:
        return _itself
    kinds = get_args(hint) or (hint,)
    if isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel):
        return _body(kinds[0], may_be_empty=NoneType in kinds)
    raise TypeError(f"a direct route cannot take {hint}")


def _path_parameter(name: str, hint: Any) -> Argument:
    validate = TypeAdapter(hint).validate_strings

    async def validated(request: Request) -> Any:
        try:
            return validate(request.path_params[name])
        except ValidationError as exc:
            raise invalid_request([{**error, "loc": ("path", name)} for error in _errors_of(exc)]) from None

    return validated


async def _itself(request: Request) -> Request:
    return request


def _body(model: type[BaseModel], *, may_be_empty: bool) -> Argument:
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

    return validated


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
        return "String is not of the form wanted here"
    return str(error["msg"]).removeprefix("Value error, ")
