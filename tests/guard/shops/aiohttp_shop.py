"""The shop in aiohttp, with a sub-application that has its own envelope."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.guard.shops import GUARD, OTHER_GUARD, Shop, client_at, seen, trusted
from wxauth_guard import WxAuthError, require_roles
from wxauth_guard.aiohttp import REFUSE, bearer


def make_app() -> web.Application:
    routes = web.RouteTableDef()

    @routes.get("/coroutine")
    @bearer(GUARD)
    async def coroutine(request: web.Request) -> web.Response:
        return web.Response(text=seen(request["wxauth"]))

    @routes.get("/argument/{number}")
    @bearer(GUARD)
    async def argument(request: web.Request) -> web.Response:
        assert request.match_info["number"] == "7"
        return web.Response(text=seen(request["wxauth"]))

    @routes.get("/stream")
    @bearer(GUARD)
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for letter in seen(request["wxauth"]):
            await response.write(letter.encode())
        return response

    @bearer(GUARD, "clerk")
    async def role(request: web.Request) -> web.Response:
        return web.Response(text=seen(request["wxauth"]))

    @routes.get("/role-in-view")
    @bearer(GUARD)
    async def role_in_view(request: web.Request) -> web.Response:
        require_roles(request["wxauth"], "clerk")
        return web.Response(text=seen(request["wxauth"]))

    @routes.get("/optional")
    @bearer(GUARD, optional=True)
    async def optional(request: web.Request) -> web.Response:
        return web.Response(text=seen(request["wxauth"]))

    @routes.get("/current")
    @bearer(GUARD.current)
    async def current(request: web.Request) -> web.Response:
        return web.Response(text=seen(request["wxauth"]))

    @routes.get("/other")
    @bearer(OTHER_GUARD)
    async def other(request: web.Request) -> web.Response:
        return web.Response(text=seen(request["wxauth"]))

    @routes.get("/own-error")
    @bearer(GUARD)
    async def own_error(request: web.Request) -> web.Response:
        raise LookupError("gone")

    @routes.get("/another-token")
    @bearer(GUARD)
    async def another_token(request: web.Request) -> web.Response:
        await GUARD.verify("not.a.token")
        return web.Response()

    class Method(web.View):
        @bearer(GUARD)
        async def get(self) -> web.Response:
            return web.Response(text=seen(self.request["wxauth"]))

        @bearer(GUARD)
        async def post(self) -> web.Response:
            return web.Response(text=seen(self.request["wxauth"]))

    @bearer(GUARD)
    class Whole(web.View):
        async def get(self) -> web.Response:
            return web.Response(text=seen(self.request["wxauth"]))

    @bearer(GUARD, "clerk")
    class RoleOfClass(web.View):
        async def get(self) -> web.Response:
            return web.Response(text=seen(self.request["wxauth"]))

    class Handlers:
        @bearer(GUARD)
        async def get(self, request: web.Request) -> web.Response:
            return web.Response(text=seen(request["wxauth"]))

    @web.middleware
    async def answer_errors(request: web.Request, handler: Any) -> Any:
        try:
            return await handler(request)
        except Exception as error:
            return web.Response(text=repr(error), status=599)

    enveloped = web.Application()

    async def refuse(_: web.Request, refusal: WxAuthError) -> web.StreamResponse:
        return web.json_response({"code": refusal.code}, status=418)

    enveloped[REFUSE] = refuse
    enveloped.add_routes([web.get("/", bearer(GUARD)(Handlers().get))])

    app = web.Application(middlewares=[answer_errors])
    app.add_routes(routes)
    app.add_routes([web.get("/role", role), web.options("/role", role)])
    app.add_routes([web.view("/method", Method), web.view("/class", Whole), web.view("/role-of-class", RoleOfClass)])
    app.add_routes([web.get("/bound-method", Handlers().get)])
    app.add_subapp("/enveloped", enveloped)
    return app


@asynccontextmanager
async def served() -> AsyncIterator[Shop]:
    runner = web.AppRunner(app := make_app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    paths = {resource.canonical.replace("{number}", "7") for resource in app.router.resources()}
    paths = paths - {"/enveloped"} | {"/enveloped/"}
    async with client_at(runner.addresses[0][1]) as client, trusted(client, sorted(paths)) as shop:
        yield shop
    await runner.cleanup()
