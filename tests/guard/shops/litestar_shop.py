"""The shop in Litestar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Controller, Litestar, MediaType, Request, Response, Router, get, post, route
from litestar.response import Stream

from tests.guard.shops import GUARD, OTHER_GUARD, Shop, client_by_asgi, seen, trusted
from wxauth_guard import WxAuthError, require_roles
from wxauth_guard.litestar import bearer

TEXT = MediaType.TEXT
Asked = Request[Any, Any, Any]


@get("/function", guards=[bearer(GUARD)], media_type=TEXT, sync_to_thread=True)
def function(request: Asked) -> str:
    return seen(request.user)


@get("/coroutine", guards=[bearer(GUARD)], media_type=TEXT)
async def coroutine(request: Asked) -> str:
    return seen(request.user)


@get("/argument/{number:int}", guards=[bearer(GUARD)], media_type=TEXT)
async def argument(request: Asked) -> str:
    assert request.path_params == {"number": 7}
    return seen(request.user)


@get("/stream", guards=[bearer(GUARD)])
async def stream(request: Asked) -> Stream:
    return Stream(iter(seen(request.user)))


@route("/role", http_method=["GET", "OPTIONS"], guards=[bearer(GUARD, "clerk")], media_type=TEXT)
async def role(request: Asked) -> str:
    return seen(request.user)


@get("/role-in-view", guards=[bearer(GUARD)], media_type=TEXT)
async def role_in_view(request: Asked) -> str:
    require_roles(request.user, "clerk")
    return seen(request.user)


@get("/optional", guards=[bearer(GUARD, optional=True)], media_type=TEXT)
async def optional(request: Asked) -> str:
    return seen(request.user)


@get("/current", guards=[bearer(GUARD.current)], media_type=TEXT)
async def current(request: Asked) -> str:
    return seen(request.user)


@get("/other", guards=[bearer(OTHER_GUARD)], media_type=TEXT)
async def other(request: Asked) -> str:
    return seen(request.user)


@get("/own-error", guards=[bearer(GUARD)], media_type=TEXT)
async def own_error() -> str:
    raise LookupError("gone")


@get("/another-token", guards=[bearer(GUARD)], media_type=TEXT)
async def another_token() -> str:
    await GUARD.verify("not.a.token")
    return "never"


class Whole(Controller):
    path = "/class"
    guards = [bearer(GUARD)]  # noqa: RUF012 - as Litestar's guide shows it

    @get("/", media_type=TEXT)
    async def answer(self, request: Asked) -> str:
        return seen(request.user)


@post("/method", media_type=TEXT, status_code=200)
async def method(request: Asked) -> str:
    return seen(request.user)


@get("/method", media_type=TEXT)
async def method_read(request: Asked) -> str:
    return seen(request.user)


def refuse(_: Asked, refusal: WxAuthError) -> Response[dict[str, str]]:
    return Response({"code": refusal.code}, status_code=418)


@get("/enveloped", guards=[bearer(GUARD)], exception_handlers={WxAuthError: refuse}, media_type=TEXT)
async def enveloped(request: Asked) -> str:
    return seen(request.user)


def answer_error(_: Asked, error: Exception) -> Response[str]:
    return Response(repr(error), status_code=599, media_type=TEXT)


ROUTES: list[Any] = [
    function,
    coroutine,
    argument,
    stream,
    role,
    role_in_view,
    optional,
    current,
    other,
    own_error,
    another_token,
    Whole,
    Router("/", route_handlers=[method, method_read], guards=[bearer(GUARD)]),
    enveloped,
]


@asynccontextmanager
async def served() -> AsyncIterator[Shop]:
    app = Litestar(ROUTES, exception_handlers={Exception: answer_error, 401: answer_error}, openapi_config=None)
    paths = {route.path.replace("{number:int}", "7") for route in app.routes}
    async with client_by_asgi(app) as client, trusted(client, sorted(paths)) as shop:
        yield shop
