"""Each example in examples/guarded guards an existing project in its framework."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Optional

import django.conf
import django.core.handlers.wsgi
import django.urls
import httpx
import pytest
import tornado.httpserver
import tornado.netutil
import tornado.web
from aiohttp import web
from sanic import Sanic, empty, text

from tests.guard.hostile import HOSTILE, Forger
from tests.headers import bearer
from tests.problems import problem_of
from tests.sweeps import Sweep
from wxauth_guard import Principal
from wxauth_guard.testing import TestIssuer

EXAMPLES = Path(__file__).parents[2] / "examples/guarded"
LONGEST = 50
"""The largest number of lines that a formatted example may have."""

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


# In addition to the example's routes, each project has a public page at /welcome, which greets known users. Pages at
# /staff use another login with its own header. There is a static file at /static/logo.svg, and the project answers
# preflight requests from any origin.

LOGO = "<svg/>"
OTHER_LOGIN = {"Authorization": "Token of-staff"}
PREFLIGHT = {"Origin": "https://shop.test", "Access-Control-Request-Method": "GET"}
ALLOWED = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "Authorization"}


def greeting(user: Optional[Principal]) -> str:
    return "welcome" if user is None else f"welcome, {user.openid}"


def staff_page(authorization: Optional[str]) -> tuple[str, int]:
    """Return the text and the status of a staff page, as the project's other login answers."""
    if authorization is None:
        return "log in, please", 401
    return ("accounts", 200) if authorization == OTHER_LOGIN["Authorization"] else ("not for you", 403)


@cache
def static_folder() -> str:
    folder = tempfile.mkdtemp()
    Path(folder, "logo.svg").write_text(LOGO)
    return folder


@asynccontextmanager
async def flask_served() -> AsyncIterator[tuple[Shown, httpx.AsyncClient]]:
    from flask import Response, g, request

    shown = run(example("flask_app"), "flask_example")
    app = shown["app"]
    app.static_folder = static_folder()
    app.add_url_rule("/welcome", "welcome", lambda: greeting(g.wxauth))
    app.add_url_rule("/staff", "staff", lambda: staff_page(request.headers.get("Authorization")))

    def with_origin(response: Response) -> Response:
        response.headers.update(ALLOWED)
        return response

    app.after_request(with_origin)
    async with client_by_wsgi(shown["app"]) as client:
        yield shown, client


def set_up_django() -> None:
    if not django.conf.settings.configured:
        django.conf.settings.configure(
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="no secret",
            ROOT_URLCONF="urls_of_example",
            MIDDLEWARE=[
                "tests.guard.django_login.allow_origins",
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.messages.middleware.MessageMiddleware",
                "tests.guard.django_login.guarded",
            ],
            INSTALLED_APPS=[
                *(f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "messages", "sessions")),
                "rest_framework",
            ],
            SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
            TEMPLATES=[
                {
                    "BACKEND": "django.template.backends.django.DjangoTemplates",
                    "APP_DIRS": True,
                    "OPTIONS": {
                        "context_processors": [
                            "django.template.context_processors.request",
                            "django.contrib.auth.context_processors.auth",
                            "django.contrib.messages.context_processors.messages",
                        ]
                    },
                }
            ],
            STATIC_URL="/static/",
            REST_FRAMEWORK={
                "DEFAULT_AUTHENTICATION_CLASSES": ["rest_example.WxAuth", "tests.guard.django_login.StaffLogin"],
                "EXCEPTION_HANDLER": "rest_example.refuse",
                "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
                "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.UserRateThrottle"],
                "DEFAULT_THROTTLE_RATES": {"user": "1000/s"},
                "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
            },
        )
        django.setup()


@asynccontextmanager
async def django_served(routes: list[Any]) -> AsyncIterator[httpx.AsyncClient]:
    from django.contrib import admin
    from django.views.static import serve

    routes.append(django.urls.path("static/<path:path>", serve, {"document_root": static_folder()}))
    routes.append(django.urls.path("admin/", admin.site.urls))
    sys.modules["urls_of_example"] = SimpleNamespace(urlpatterns=routes)  # type: ignore[assignment]
    django.urls.clear_url_caches()
    async with client_by_wsgi(django.core.handlers.wsgi.WSGIHandler()) as client:
        yield client


@asynccontextmanager
async def plain_django_served() -> AsyncIterator[tuple[Shown, httpx.AsyncClient]]:
    set_up_django()
    from django.http import HttpRequest, HttpResponse

    shown = run(example("django_views"), "django_example")

    def staff(request: HttpRequest) -> HttpResponse:
        body, status = staff_page(request.headers.get("Authorization"))
        return HttpResponse(body, status=status)

    routes = [
        django.urls.path("welcome", lambda request: HttpResponse(greeting(request.wxauth))),
        django.urls.path("staff", staff),
        django.urls.path("orders", shown["guarded"](shown["orders"])),
        django.urls.path("orders/7", shown["guarded"](lambda request: HttpResponse(status=204), "clerk")),
    ]
    async with django_served(routes) as client:
        yield shown, client


@asynccontextmanager
async def rest_framework_served() -> AsyncIterator[tuple[Shown, httpx.AsyncClient]]:
    set_up_django()
    shown = rest_framework_shown()
    sys.modules.pop("django_example", None)
    from tests.guard.django_project import erase, orders, staff, welcome

    routes = {"orders": orders, "orders/7": erase, "staff": staff, "welcome": welcome}
    async with django_served([django.urls.path(path, view) for path, view in routes.items()]) as client:
        yield shown, client


@cache
def rest_framework_shown() -> Shown:
    """Run the example only once, because REST framework reads its settings only once."""
    return run(example("rest_framework_views"), "rest_example")


@asynccontextmanager
async def sanic_served() -> AsyncIterator[tuple[Shown, httpx.AsyncClient]]:
    Sanic._app_registry.clear()
    shown = run(example("sanic_app").replace('Sanic("orders")', 'Sanic("orders", configure_logging=False)'), "s")
    app: Any = shown["app"]
    app.config.TOUCHUP = False  # this step works only once in a process
    app.static("/static", static_folder())

    async def welcome(request: Any) -> Any:
        return text(greeting(request.ctx.wxauth))

    async def staff(request: Any) -> Any:
        return text(*staff_page(request.headers.get("Authorization")))

    async def preflight(request: Any) -> Any:
        return empty(headers=ALLOWED)

    app.add_route(welcome, "/welcome")
    app.add_route(staff, "/staff")
    app.add_route(preflight, "/orders", methods=["OPTIONS"])

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

    class Welcome(tornado.web.RequestHandler):
        async def get(self) -> None:
            await self.finish(greeting(await shown["guard"].find_user(self.request.headers.get("Authorization"))))

    class Staff(tornado.web.RequestHandler):
        async def get(self) -> None:
            body, status = staff_page(self.request.headers.get("Authorization"))
            self.set_status(status)
            await self.finish(body)

    orders: Any = shown["Orders"]

    class WithOrigin(orders):
        def set_default_headers(self) -> None:
            for name, value in ALLOWED.items():
                self.set_header(name, value)

        def options(self) -> None:
            self.set_status(204)

    static = ("/static/(.*)", tornado.web.StaticFileHandler, {"path": static_folder()})
    own: list[Any] = [("/welcome", Welcome), ("/staff", Staff), static, ("/orders", WithOrigin)]
    shown["app"].wildcard_router.rules[:0] = tornado.web.Application(own).wildcard_router.rules
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

    async def welcome(request: web.Request) -> web.Response:
        user = await shown["guard"].find_user(*request.headers.getall("Authorization", ()))
        return web.Response(text=greeting(user))

    async def staff(request: web.Request) -> web.Response:
        body, status = staff_page(request.headers.get("Authorization"))
        return web.Response(text=body, status=status)

    async def preflight(_: web.Request) -> web.Response:
        return web.Response(status=204, headers=ALLOWED)

    own = [web.get("/welcome", welcome), web.get("/staff", staff), web.options("/orders", preflight)]
    shown["app"].add_routes([erase, web.static("/static", static_folder()), *own])
    runner = web.AppRunner(shown["app"])
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with at(runner.addresses[0][1]) as client:
        yield shown, client
    await runner.cleanup()


@asynccontextmanager
async def litestar_served() -> AsyncIterator[tuple[Shown, httpx.AsyncClient]]:
    from litestar import MediaType, Request, Response, get
    from litestar.config.cors import CORSConfig
    from litestar.static_files import create_static_files_router

    @get("/welcome", media_type=MediaType.TEXT)
    async def welcome(request: Request[Any, Any, Any]) -> str:
        return greeting(request.user)

    @get("/staff")
    async def staff(request: Request[Any, Any, Any]) -> Response[str]:
        body, status = staff_page(request.headers.get("Authorization"))
        return Response(body, status_code=status, media_type=MediaType.TEXT)

    static = create_static_files_router(path="/static", directories=[static_folder()])
    source = example("litestar_app").replace("[orders, erase]", "[orders, erase, *ADDED]")
    source = source.replace("    middleware=", "    cors_config=CORS,\n    middleware=")
    added = {"ADDED": [welcome, staff, static], "CORS": CORSConfig()}
    module = sys.modules["litestar_example"] = ModuleType("litestar_example")
    module.__dict__.update(added)
    exec(source, module.__dict__)
    shown = module.__dict__
    transport = httpx.ASGITransport(shown["app"], raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://orders.test") as client:
        yield shown, client


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
    "Litestar": litestar_served,
}


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
                # Servers join the two headers, but httpx's transport for WSGI passes on only the last one.
                two = ["Bearer a, Bearer b"] if "WSGI" in framework else ["Bearer a"] * 2
                answer = await client.get("/orders", headers=[("Authorization", each) for each in two])
                problem_of(answer, "invalid_request", 400)
            with sweep.case("a bad token"):
                forged = bearer(HOSTILE["one bit off"](Forger(token, issuer.key)))
                problem_of(await client.get("/orders", headers=forged), "invalid_token", 401)
            for scope in ("openid", ""):
                with sweep.case(f"a website's or an agent's token, with the scope '{scope}'"):
                    theirs = issuer.headers(scope=scope, roles=["clerk"])
                    problem_of(await client.get("/orders", headers=theirs), "insufficient_scope", 403)
                    problem_of(await client.delete("/orders/7", headers=theirs), "insufficient_scope", 403)
            with sweep.case("no role"):
                answer = await client.delete("/orders/7", headers=bearer(token))
                if "REST" in framework:  # this is the project's own permission class
                    assert answer.status_code == 403
                else:
                    problem_of(answer, "insufficient_role", 403)
                    assert "www-authenticate" not in answer.headers
            with sweep.case("the role"):
                answer = await client.delete("/orders/7", headers=issuer.headers(roles=["clerk"]))
                assert answer.status_code == 204


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_the_example_leaves_the_rest_of_a_project_as_it_was(framework: str) -> None:
    issuer = TestIssuer(issuer="http://127.0.0.1:8000")
    async with FRAMEWORKS[framework]() as (shown, client):
        with issuer.trusted_by(shown["guard"]), Sweep() as sweep:
            for name, headers, greeted in (
                ("a guest at an open page", {}, "welcome"),
                ("a user at an open page", issuer.headers(openid="o1"), "welcome, o1"),
            ):
                with sweep.case(name):
                    answer = await client.get("/welcome", headers=headers)
                    assert (answer.status_code, answer.text) == (200, greeted)
            with sweep.case("another login at an open page"):
                answer = await client.get("/welcome", headers=OTHER_LOGIN)
                assert (answer.status_code, answer.text) == (200, "welcome")
            for name, headers, answered in (
                ("the other login", OTHER_LOGIN, staff_page(OTHER_LOGIN["Authorization"])),
                ("its own 403", {"Authorization": "Token of-nobody"}, ("not for you", 403)),
                ("its own 401", {}, ("log in, please", 401)),
            ):
                with sweep.case(name):
                    answer = await client.get("/staff", headers=headers)
                    assert answer.status_code == answered[1]
                    assert answer.text == answered[0] or ("REST" in framework and answered[1] != 200)
            with sweep.case("a static file"):
                answer = await client.get("/static/logo.svg")
                assert (answer.status_code, answer.text) == (200, LOGO)
            with sweep.case("a preflight"):
                answer = await client.options("/orders", headers=PREFLIGHT)
                assert answer.status_code in (200, 204)
                assert answer.headers["access-control-allow-origin"] == "*"
            with sweep.case("no such page"):
                assert (await client.get("/nowhere")).status_code == 404
            if framework.startswith("Django"):
                with sweep.case("the admin"):
                    answer = await client.get("/admin/")
                    assert (answer.status_code, answer.headers["location"]) == (302, "/admin/login/?next=/admin/")
                    assert (await client.get("/admin/login/")).status_code == 200
            if "REST" in framework:
                with sweep.case("a user is no staff"):
                    assert (await client.get("/staff", headers=issuer.headers())).status_code == 403
                with sweep.case("the project's own refusal of a token"):
                    answer = await client.get("/orders", headers={"Authorization": "Token unknown"})
                    assert (answer.status_code, answer.json()) == (401, {"detail": "who is that?"})
                    assert answer.headers["www-authenticate"] == "Bearer"


STARTED = """
import django.conf
apps = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "rest_framework"]
django.conf.settings.configure(INSTALLED_APPS=apps, REST_FRAMEWORK=REST_FRAMEWORK)
django.setup()
import rest_framework.views
print(*(each.__name__ for each in rest_framework.views.APIView.authentication_classes))
print(rest_framework.views.APIView().get_exception_handler().__name__)
"""


def settings_shown() -> str:
    """Return the code block of the guide.

    This function does not use tests.docs, which imports the service, because these tests also run with only the guard.
    """
    found = re.search(
        r"```python\n(REST_FRAMEWORK = .*?)```",
        (EXAMPLES.parents[1] / "docs/build/siblings-frameworks.md").read_text(),
        re.DOTALL,
    )
    assert found
    return found[1]


@pytest.mark.process
def test_rest_framework_starts_with_the_example_in_its_settings_as_shown(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/authentication.py").write_text(example("rest_framework_views"))
    command = [sys.executable, "-c", settings_shown() + STARTED]
    # sys.path can contain relative paths, and the command runs in another folder.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    assert (
        subprocess.check_output(command, cwd=tmp_path, env=env, text=True) == "WxAuth SessionAuthentication\nrefuse\n"
    )


ENVELOPE = """
import django.conf
django.conf.settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"])
django.setup()
{shown}
import rest_framework.exceptions, rest_framework.test, rest_framework.views
from wxauth_guard.errors import TokenExpired

class View(rest_framework.views.APIView):
    def get_exception_handler(self):
        return refuse
    def get(self, request):
        raise rest_framework.exceptions.NotFound() if "gone" in request.GET else TokenExpired()

for url in "/", "/?gone":
    request = rest_framework.test.APIRequestFactory().get(url, headers={{"Accept-Language": "zh-CN"}})
    answer = View.as_view()(request)
    shown = [answer.data.get("code"), answer.data.get("message"), answer.headers.get("WWW-Authenticate")]
    print(answer.status_code, *shown)
"""


@pytest.mark.process
def test_rest_framework_refuses_in_the_projects_own_envelope() -> None:
    page = (EXAMPLES.parents[1] / "docs/build/siblings-frameworks.md").read_text()
    [shown] = re.findall(r"```python\n(from rest_framework.*?)```", page, re.DOTALL)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    printed = subprocess.check_output([sys.executable, "-c", ENVELOPE.format(shown=shown)], env=env, text=True)
    refused, gone = printed.splitlines()
    assert re.fullmatch(r'401 401 登录已过期.* Bearer error="invalid_token"', refused)
    assert gone == "404 None None None"


def test_an_example_fits_on_a_screen() -> None:
    examples = sorted(EXAMPLES.glob("*.py"))
    assert len(examples) == len(FRAMEWORKS)
    assert [example.name for example in examples if len(example.read_text().splitlines()) > LONGEST] == []
