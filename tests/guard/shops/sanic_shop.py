"""The shop in Sanic, with a blueprint and an own error handler."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sanic import Blueprint, Request, Sanic, json, text
from sanic.views import HTTPMethodView

from tests.guard.shops import GUARD, OTHER_GUARD, Shop, client_at, seen, trusted
from wxauth_guard import WxAuthError, require_roles
from wxauth_guard.sanic import bearer


def make_app() -> Any:
    Sanic._app_registry.clear()
    app: Any = Sanic("shop", configure_logging=False)
    app.config.TOUCHUP = False  # this step works only once in a process

    @app.get("/function")
    @bearer(GUARD)
    def function(request: Request) -> Any:
        return text(seen(request.ctx.wxauth))

    @app.get("/coroutine")
    @bearer(GUARD)
    async def coroutine(request: Request) -> Any:
        return text(seen(request.ctx.wxauth))

    @app.get("/argument/<number:int>")
    @bearer(GUARD)
    async def argument(request: Request, number: int) -> Any:
        assert number == 7
        return text(seen(request.ctx.wxauth))

    @app.get("/stream")
    @bearer(GUARD)
    async def stream(request: Request) -> None:
        response = await request.respond(content_type="text/plain")
        assert response is not None
        for letter in seen(request.ctx.wxauth):
            await response.send(letter)
        await response.eof()

    @app.route("/role", methods=["GET", "OPTIONS"])
    @bearer(GUARD, "clerk")
    async def role(request: Request) -> Any:
        return text(seen(request.ctx.wxauth))

    @app.get("/role-in-view")
    @bearer(GUARD)
    async def role_in_view(request: Request) -> Any:
        require_roles(request.ctx.wxauth, "clerk")
        return text(seen(request.ctx.wxauth))

    @app.get("/optional")
    @bearer(GUARD, optional=True)
    async def optional(request: Request) -> Any:
        return text(seen(request.ctx.wxauth))

    @app.get("/current")
    @bearer(GUARD.current)
    async def current(request: Request) -> Any:
        return text(seen(request.ctx.wxauth))

    @app.get("/other")
    @bearer(OTHER_GUARD)
    async def other(request: Request) -> Any:
        return text(seen(request.ctx.wxauth))

    @app.get("/own-error")
    @bearer(GUARD)
    async def own_error(request: Request) -> Any:
        raise LookupError("gone")

    @app.get("/another-token")
    @bearer(GUARD)
    async def another_token(request: Request) -> Any:
        await GUARD.verify("not.a.token")

    class Method(HTTPMethodView):
        @bearer(GUARD)
        def get(self, request: Request) -> Any:
            return text(seen(request.ctx.wxauth))

        @bearer(GUARD)
        async def post(self, request: Request) -> Any:
            return text(seen(request.ctx.wxauth))

    class Listed(HTTPMethodView):
        decorators = [bearer(GUARD)]  # noqa: RUF012 - as Sanic's guide shows it

        def get(self, request: Request) -> Any:
            return text(seen(request.ctx.wxauth))

    @bearer(GUARD)
    class Whole(HTTPMethodView):
        async def get(self, request: Request) -> Any:
            return text(seen(request.ctx.wxauth))

    for path, view in {"method": Method, "listed": Listed, "class": Whole}.items():
        app.add_route(view.as_view(), f"/{path}")

    class Attached(HTTPMethodView, attach=app, uri="/attached"):
        decorators = [bearer(GUARD)]  # noqa: RUF012 - as Sanic's guide shows it

        async def get(self, request: Request) -> Any:
            return text(seen(request.ctx.wxauth))

    blueprint = Blueprint("blueprint")

    @blueprint.get("/blueprint")
    @bearer(GUARD)
    async def in_blueprint(request: Request) -> Any:
        return text(seen(request.ctx.wxauth))

    @app.get("/enveloped", name="enveloped")
    @bearer(GUARD)
    async def in_envelope(request: Request) -> Any:
        return text(seen(request.ctx.wxauth))

    app.blueprint(blueprint)
    app.error_handler.add(WxAuthError, lambda _, error: json({"code": error.code}, 418), ["shop.enveloped"])
    app.error_handler.add(Exception, lambda _, error: text(repr(error), 599))
    return app


@asynccontextmanager
async def served() -> AsyncIterator[Shop]:
    app = make_app()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = await app.create_server(sock=listening, return_asyncio_server=True)
        await server.startup()
        await server.start_serving()
        paths = {f"/{route.path}".replace("<number:int>", "7") for route in app.router.routes}
        async with client_at(listening.getsockname()[1]) as client, trusted(client, sorted(paths)) as shop:
            yield shop
        await server.close()
