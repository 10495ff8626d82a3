"""The responses to failures: wxauth's own errors, routing errors, and exceptions that no route has caught."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import cast, get_args

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from wxauth.errors import InternalError, MethodNotAllowed, NotFound
from wxauth.web.bodies import json_form
from wxauth.web.edge import PROBLEM_KEY
from wxauth_guard.errors import InvalidRequest, WxAuthError
from wxauth_guard.problems import problem_response


def add_failures(app: FastAPI) -> None:
    """Add the exception handlers that convert every failure of an app into a problem document."""
    for kind in (WxAuthError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _response_to)


async def _response_to(request: Request, exc: Exception) -> Response:
    request.scope[PROBLEM_KEY] = error = _error_of(request, exc)
    return problem_response(error, request.scope)


def _error_of(request: Request, exc: Exception) -> WxAuthError:
    match exc:
        case WxAuthError():
            return exc
        case HTTPException(status_code=HTTPStatus.NOT_FOUND):
            return NotFound("this path doesn't exist" + _path_hint(request))
        case HTTPException(status_code=HTTPStatus.METHOD_NOT_ALLOWED):
            routes = list(_routes_at(request, request.scope["path"]))
            allow = sorted({method for route in routes for method in route.methods or ()})
            return MethodNotAllowed(f"this path takes {', '.join(allow)}{_body_hint(routes)}", allow=allow)
        case HTTPException():
            return InvalidRequest("the request couldn't be read", status=exc.status_code)
        case ClientDisconnect():
            return InvalidRequest("the client disconnected before its body was read", status=HTTPStatus.BAD_REQUEST)
        case _:  # the exception's own text could contain secrets
            return InternalError("the log has more under this request_id")


def _routes_at(request: Request, path: str) -> Iterator[Route]:
    for route in cast(FastAPI, request.app).router.routes:
        if isinstance(route, Route) and route.matches({**request.scope, "path": path})[0] is not Match.NONE:
            yield route


# The hint helps a caller who has sent the values of the body in the query of a GET request.
def _body_hint(routes: Sequence[Route]) -> str:
    match routes:
        case [APIRoute(body_field=field)] if field is not None:
            annotation = field.field_info.annotation
            # The type of an optional body is a union, whose first member is the model.
            model = (get_args(annotation) or (annotation,))[0]
            return f", with {json_form(model)} as JSON"
    return ""


def _path_hint(request: Request) -> str:
    """Name the right path if a path is wrong only because of superfluous slashes."""
    path = request.scope["path"]
    corrected = "/" + "/".join(part for part in path.split("/") if part)
    if corrected == path:
        return ""
    route = next(_routes_at(request, corrected), None)
    if route is None:
        return ""
    root = request.scope.get("root_path", "")
    return f": write {root}{route.path}, with single slashes and none at the end"
