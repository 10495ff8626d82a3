"""The frameworks of examples/guarded, each guarded as its file does."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import django.conf
import django.core.handlers.wsgi
import django.urls
import httpx
import pytest
import tornado.httpserver
import tornado.netutil
from aiohttp import web
from sanic import Sanic

from tests.headers import bearer
from tests.problems import problem_of
from tests.sweeps import Sweep
from tests.tokens.hostile import HOSTILE, Forger
from wxauth.guard import Principal
from wxauth.testing import TestIssuer

EXAMPLES = Path(__file__).parents[2] / "examples/guarded"
LONGEST = 30
"""Lines of an example, as formatted."""

Shown = dict[str, Any]
"""The names that an example defines."""


def example(name: str) -> str:
    return (EXAMPLES / f"{name}.py").read_text()


def run(source: str, name: str) -> Shown:
    module = sys.modules[name] = ModuleType(name)
    exec(source, module.__dict__)
    return module.__dict__


def client_by_wsgi(app: Any) -> httpx.AsyncClient:
    transport = httpx.WSGITransport(app)

    class InThread(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            answer = await asyncio.to_thread(transport.handle_request, request)
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.read())

    return httpx.AsyncClient(transport=InThread(), base_url="http://orders.test")


@asynccontextmanager
async def flask_served() -> AsyncIterator[tuple[Shown, httpx.AsyncClient]]:
    shown = run(example("flask_app"), "flask_example")
    async with client_by_wsgi(shown["app"]) as client:
        yield shown, client


def set_up_django() -> None:
    if not django.conf.settings.configured:
        django.conf.settings.configure(
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="no secret",
            ROOT_URLCONF="urls_of_example",
            MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
            INSTALLED_APPS=["rest_framework"],
            REST_FRAMEWORK={
                "EXCEPTION_HANDLER": "rest_example.refuse",
                "UNAUTHENTICATED_USER": None,
                "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
                "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
            },
        )
        django.setup()


@asynccontextmanager
async def django_served(routes: list[Any]) -> AsyncIterator[httpx.AsyncClient]:
    sys.modules["urls_of_example"] = SimpleNamespace(urlpatterns=routes)  # type: ignore[assignment]
    django.urls.clear_url_caches()
    async with client_by_wsgi(django.core.handlers.wsgi.WSGIHandler()) as client:
        yield client


@asynccontextmanager
async def plain_django_served() -> AsyncIterator[tuple[Shown, httpx.AsyncClient]]:
    set_up_django()
    from django.http import HttpResponse

    shown = run(example("django_views"), "django_example")
    routes = [
        django.urls.path("orders", shown["guarded"](shown["orders"])),
        django.urls.path("orders/7", shown["guarded"](lambda request: HttpResponse(status=204), "clerk")),
    ]
    async with django_served(routes) as client:
        yield shown, client


@asynccontextmanager
async def rest_framework_served() -> AsyncIterator[tuple[Shown, httpx.AsyncClient]]:
    set_up_django()
    shown = run(example("rest_framework_views"), "rest_example")
    async with django_served([django.urls.path("orders", shown["Orders"].as_view())]) as client:
        yield shown, client


@asynccontextmanager
async def sanic_served() -> AsyncIterator[tuple[Shown, httpx.AsyncClient]]:
    Sanic._app_registry.clear()
    shown = run(example("sanic_app").replace('Sanic("orders")', 'Sanic("orders", configure_logging=False)'), "s")
    shown["app"].config.TOUCHUP = False  # which compiles the class again, and can do so only once in a process
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = await shown["app"].create_server(sock=listening, return_asyncio_server=True)
        await server.startup()
        await server.start_serving()
        async with at(listening.getsockname()[1]) as client:
            yield shown, client
        await server.close()


@asynccontextmanager
async def tornado_served() -> AsyncIterator[tuple[Shown, httpx.AsyncClient]]:
    shown = run(example("tornado_app"), "tornado_example")
    server = tornado.httpserver.HTTPServer(shown["app"])
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    async with at(sockets[0].getsockname()[1]) as client:
        yield shown, client
    server.stop()
    await server.close_all_connections()


@asynccontextmanager
async def aiohttp_served() -> AsyncIterator[tuple[Shown, httpx.AsyncClient]]:
    shown = run(example("aiohttp_app"), "aiohttp_example")
    erase = web.delete("/orders/{number}", shown["guarded"](answer_nothing, "clerk"))
    shown["app"].add_routes([erase])
    runner = web.AppRunner(shown["app"])
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with at(runner.addresses[0][1]) as client:
        yield shown, client
    await runner.cleanup()


async def answer_nothing(request: web.Request, user: Principal) -> web.Response:
    return web.Response(status=204)


def at(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False)


Served = Callable[[], AbstractAsyncContextManager[tuple[Shown, httpx.AsyncClient]]]
FRAMEWORKS: dict[str, Served] = {
    "Flask (WSGI)": flask_served,
    "Django (WSGI)": plain_django_served,
    "Django REST framework (WSGI)": rest_framework_served,
    "Sanic": sanic_served,
    "Tornado": tornado_served,
    "aiohttp": aiohttp_served,
}
WITH_ROLES = {"Flask (WSGI)", "Django (WSGI)", "Sanic", "aiohttp"}


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_the_example_guards_its_routes(framework: str) -> None:
    issuer = TestIssuer(issuer="http://127.0.0.1:8000")
    token = issuer.token(openid="o1")
    async with FRAMEWORKS[framework]() as (shown, client):
        with issuer.trusted_by(shown["guard"]), Sweep() as sweep:
            with sweep.case("a good token"):
                answer = await client.get("/orders", headers=bearer(token))
                assert answer.json()["openid"] == "o1", answer.text
            with sweep.case("no token"):
                answer = await client.get("/orders", headers={"Accept-Language": "zh-CN", "X-Request-ID": "order-7"})
                problem = problem_of(answer, "missing_token", 401)
                assert (problem["title"], problem["request_id"]) == ("请先登录。", "order-7")
                assert answer.headers["www-authenticate"] == "Bearer"
            with sweep.case("two tokens"):
                # httpx's WSGI hands on the last alone, where servers join them.
                two = ["Bearer a, Bearer b"] if "WSGI" in framework else ["Bearer a"] * 2
                answer = await client.get("/orders", headers=[("Authorization", each) for each in two])
                problem_of(answer, "invalid_request", 400)
            with sweep.case("a bad token"):
                forged = bearer(HOSTILE["one bit off"](Forger(token, issuer._key)))
                problem_of(await client.get("/orders", headers=forged), "invalid_token", 401)
            if framework in WITH_ROLES:
                with sweep.case("no role"):
                    answer = await client.delete("/orders/7", headers=bearer(token))
                    problem_of(answer, "insufficient_role", 403)
                    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
                with sweep.case("the role"):
                    answer = await client.delete("/orders/7", headers=issuer.headers(roles=["clerk"]))
                    assert answer.status_code == 204


def test_an_example_fits_on_a_screen() -> None:
    examples = sorted(EXAMPLES.glob("*.py"))
    assert len(examples) == len(FRAMEWORKS)
    assert [example.name for example in examples if len(example.read_text().splitlines()) > LONGEST] == []
