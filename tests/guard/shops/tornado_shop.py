"""The shop in Tornado."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import tornado.httpserver
import tornado.netutil
from tornado.web import Application, RequestHandler

from tests.guard.shops import GUARD, OTHER_GUARD, Shop, client_at, seen, trusted
from wxauth_guard import WxAuthError, require_roles
from wxauth_guard.tornado import BearerHandler


class Users(BearerHandler):
    guard = GUARD


class Function(Users):
    def get(self) -> None:
        self.write(seen(self.wxauth))

    post = get


class Coroutine(Users):
    async def get(self) -> None:
        self.write(seen(self.wxauth))


class Argument(Users):
    def get(self, number: str) -> None:
        assert number == "7"
        self.write(seen(self.wxauth))


class Stream(Users):
    async def get(self) -> None:
        for letter in seen(self.wxauth):
            self.write(letter)
            await self.flush()


class Prepared(Users):
    def prepare(self) -> None:  # type: ignore[override]  # without a call of the base class
        seen(self.wxauth)

    def get(self) -> None:
        self.write(str(self.wxauth and self.wxauth.openid))


class Mixin(RequestHandler):
    def prepare(self) -> None:
        self.is_prepared = True

    def options(self) -> None:
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_status(204)


class Mixed(Mixin, Users):  # type: ignore[misc]
    def get(self) -> None:
        assert self.is_prepared
        self.write(seen(self.wxauth))


class Role(Users):
    roles = ("clerk",)

    def get(self) -> None:
        self.write(seen(self.wxauth))

    options = get


class RoleInView(Users):
    def get(self) -> None:
        require_roles(self.wxauth, "clerk")
        self.write(seen(self.wxauth))


class Optional(Users):
    optional = True

    def get(self) -> None:
        self.write(seen(self.wxauth))


class Current(Function):
    guard = GUARD.current


class Other(Function):
    guard = OTHER_GUARD


class OwnError(Users):
    def get(self) -> None:
        raise LookupError("gone")

    def write_error(self, status_code: int, **kwargs: object) -> None:
        self.set_status(599)
        self.write("LookupError")
        self.finish()  # type: ignore[unused-awaitable]


class AnotherToken(OwnError):
    async def get(self) -> None:  # type: ignore[override]
        await GUARD.verify("not.a.token")


class Enveloped(Function):
    def refuse(self, refusal: WxAuthError) -> Any:
        self.set_status(418)
        return self.finish({"code": refusal.code})


HANDLERS = {
    "/function": Function,
    "/coroutine": Coroutine,
    "/argument/7": Argument,
    "/stream": Stream,
    "/prepared": Prepared,
    "/mixed": Mixed,
    "/role": Role,
    "/role-in-view": RoleInView,
    "/optional": Optional,
    "/current": Current,
    "/other": Other,
    "/own-error": OwnError,
    "/another-token": AnotherToken,
    "/enveloped": Enveloped,
}


@asynccontextmanager
async def client_of(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    server = tornado.httpserver.HTTPServer(app)
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    async with client_at(sockets[0].getsockname()[1]) as client:
        yield client
    server.stop()
    await server.close_all_connections()


@asynccontextmanager
async def served() -> AsyncIterator[Shop]:
    app = Application([(path.replace("7", "([0-9]+)"), handler) for path, handler in HANDLERS.items()])
    async with client_of(app) as client, trusted(client, list(HANDLERS)) as shop:
        yield shop
