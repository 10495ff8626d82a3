"""In each framework, the guard protects every kind of view, and leaves the rest of a project as it was."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest

from tests.guard.hostile import HOSTILE, Forger
from tests.guard.shops import (
    GUARD,
    ISSUER,
    OTHER,
    SEEN,
    Serve,
    Shop,
    aiohttp_shop,
    client_at,
    client_by_wsgi,
    django_shop,
    flask_shop,
    litestar_shop,
    sanic_shop,
    seen,
    tornado_shop,
    trusted,
)
from tests.headers import bearer
from tests.problems import problem_of
from tests.sweeps import Sweep
from wxauth_guard import WxAuthError, require_roles
from wxauth_guard.errors import KeysUnavailable

SHOPS: dict[str, Serve] = {
    "Flask": flask_shop.served,
    "Django by WSGI": django_shop.by_wsgi,
    "Django by ASGI": django_shop.by_asgi,
    "REST framework": django_shop.rest_by_wsgi,
    "Sanic": sanic_shop.served,
    "aiohttp": aiohttp_shop.served,
    "Tornado": tornado_shop.served,
    "Litestar": litestar_shop.served,
}
MODULES = ["aiohttp", "django", "flask", "litestar", "rest_framework", "sanic", "tornado"]
# The tests name what these answer.
SPECIAL = {"own-error", "another-token", "enveloped", "other", "staff"}
PREFLIGHT = {"Origin": "https://shop.test", "Access-Control-Request-Method": "GET"}

pytestmark = pytest.mark.slow


def kind_of(path: str) -> str:
    return path.split("/")[1]


def guarded_paths(shop: Shop) -> list[str]:
    kinds = {path: kind_of(path) for path in shop.paths}
    return [path for path, kind in kinds.items() if kind not in SPECIAL and not kind.startswith("optional")]


@contextmanager
def untouched() -> Iterator[None]:
    SEEN.clear()
    yield
    assert SEEN == []


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.text.strip('"')


@pytest.mark.parametrize("framework", SHOPS)
async def test_every_kind_of_view_is_guarded(framework: str) -> None:
    clerk = ISSUER.headers(openid="o1", roles=["clerk"])
    bad = bearer(HOSTILE["one bit off"](Forger(ISSUER.token(), ISSUER.key)))
    async with SHOPS[framework]() as shop:
        assert len(guarded_paths(shop)) >= 4
        with Sweep() as sweep:
            for path in guarded_paths(shop):
                with sweep.case(f"{path} with a token"):
                    assert text_of(await shop.client.get(path, headers=clerk)) == "o1"
                with sweep.case(f"{path} without a token"), untouched():
                    answer = await shop.client.get(path, headers={"Accept-Language": "zh", "X-Request-ID": "order-7"})
                    problem = problem_of(answer, "missing_token", 401)
                    assert (problem["title"], problem["request_id"]) == ("请先登录。", "order-7")
                    assert answer.headers["www-authenticate"] == "Bearer"
                with sweep.case(f"{path} with a bad token"), untouched():
                    problem_of(await shop.client.get(path, headers=bad), "invalid_token", 401)
                with sweep.case(f"{path} with another issuer's token"), untouched():
                    assert (await shop.client.get(path, headers=OTHER.headers())).status_code == 401
                with sweep.case(f"{path} with a website's token"), untouched():
                    theirs = ISSUER.headers(scope="openid", roles=["clerk"])
                    problem_of(await shop.client.get(path, headers=theirs), "insufficient_scope", 403)
                if "role" in path:
                    with sweep.case(f"{path} without the role"), untouched():
                        answer = await shop.client.get(path, headers=ISSUER.headers())
                        problem_of(answer, "insufficient_role", 403)
                        assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize("framework", SHOPS)
async def test_a_view_is_refused_while_the_keys_are_away(framework: str) -> None:
    class Away:
        async def find(self, kid: str) -> Any:
            return self.find_sync(kid)

        def find_sync(self, kid: str) -> Any:
            raise KeysUnavailable("the keys are away")

    async with SHOPS[framework]() as shop:
        kept, GUARD._verifier._keys = GUARD._verifier._keys, cast(Any, Away())
        try:
            with Sweep() as sweep:
                for path in guarded_paths(shop):
                    with sweep.case(path), untouched():
                        answer = await shop.client.get(path, headers=ISSUER.headers(roles=["clerk"]))
                        problem_of(answer, "keys_unavailable", 503)
                        assert answer.headers["retry-after"] == "5"
        finally:
            GUARD._verifier._keys = kept


@pytest.mark.parametrize("framework", SHOPS)
async def test_a_guest_is_admitted_only_where_the_user_is_optional(framework: str) -> None:
    async with SHOPS[framework]() as shop:
        with Sweep() as sweep:
            for path in (path for path in shop.paths if kind_of(path).startswith("optional")):
                with sweep.case(f"{path} as a guest"):
                    assert text_of(await shop.client.get(path)) == "guest"
                with sweep.case(f"{path} with another scheme"):
                    answer = await shop.client.get(path, headers={"Authorization": "Basic b2s6b2s="})
                    assert text_of(answer) == "guest"
                with sweep.case(f"{path} as a user"):
                    assert text_of(await shop.client.get(path, headers=ISSUER.headers(openid="o1"))) == "o1"
                with sweep.case(f"{path} with a bad token"), untouched():
                    answer = await shop.client.get(path, headers={"Authorization": "Bearer not.a.token"})
                    problem_of(answer, "invalid_token", 401)


@pytest.mark.parametrize("framework", [name for name in SHOPS if name != "REST framework"])
async def test_guards_keep_apart_and_leave_other_answers_alone(framework: str) -> None:
    headers = ISSUER.headers(openid="o1")
    async with SHOPS[framework]() as shop:
        with Sweep() as sweep:
            with sweep.case("the other guard's user"):
                assert text_of(await shop.client.get("/other", headers=OTHER.headers(openid="o2"))) == "o2"
            with sweep.case("the other guard's stranger"), untouched():
                problem_of(await shop.client.get("/other", headers=headers), "invalid_token", 401)
            with sweep.case("a ban"):
                banned = uuid4()
                ISSUER.ban(banned)
                answer = await shop.client.get("/current", headers=ISSUER.headers(user_id=banned))
                problem_of(answer, "session_revoked", 401)
            [enveloped] = [path for path in shop.paths if kind_of(path) == "enveloped"]
            with sweep.case("the project's own envelope"):
                answer = await shop.client.get(enveloped)
                assert (answer.status_code, answer.json()["code"]) == (418, "missing_token")
                assert text_of(await shop.client.get(enveloped, headers=headers)) == "o1"
            for path in "/own-error", "/another-token":
                with sweep.case(f"{path} is no refusal"):
                    answer = await shop.client.get(path, headers=headers)
                    assert answer.status_code >= 500
                    assert "application/problem+json" not in answer.headers.get("content-type", "")
            with sweep.case("refusals after an error of the view"):
                problem_of(await shop.client.get("/own-error"), "missing_token", 401)


@pytest.mark.parametrize("framework", SHOPS)
async def test_a_preflight_reaches_no_guarded_view(framework: str) -> None:
    async with SHOPS[framework]() as shop:
        with Sweep() as sweep:
            for path in guarded_paths(shop):
                with sweep.case(f"{path} asked by a browser"), untouched():
                    answer = await shop.client.options(path, headers=PREFLIGHT)
                    is_ours = answer.headers.get("content-type") == "application/problem+json"
                    handles_options = kind_of(path) == "role" or framework.startswith(("Django", "REST"))
                    assert not is_ours or handles_options, answer.text
                with sweep.case(f"{path} asked without an origin"), untouched():
                    await shop.client.options(path)


async def test_a_class_of_views_in_django_answers_preflights_itself() -> None:
    async with SHOPS["Django by ASGI"]() as shop:
        with Sweep() as sweep:
            for path in (
                "/class",
                "/class-later",
                "/as-view",
                "/as-view-later",
                "/dispatch",
                "/dispatch-later",
                "/method",
            ):
                with sweep.case(path):
                    answer = await shop.client.options(path, headers=PREFLIGHT)
                    assert (answer.status_code, "GET" in answer.headers["allow"]) == (200, True)


@pytest.mark.parametrize("framework", ["Django by WSGI", "Django by ASGI"])
async def test_django_checks_forged_requests_unless_a_token_was_verified(framework: str) -> None:
    async with SHOPS[framework]() as shop:
        with Sweep() as sweep:
            for path in "/optional", "/optional-coroutine":
                with sweep.case(f"{path} as a guest"), untouched():
                    answer = await shop.client.post(path)
                    assert (answer.status_code, "CSRF" in answer.text) == (403, True)
                with sweep.case(f"{path} as a guest with Django's token"):
                    own = {"Cookie": f"csrftoken={'a' * 32}", "X-CSRFToken": "a" * 32}
                    assert text_of(await shop.client.post(path, headers=own)) == "guest"
                with sweep.case(f"{path} as a user"):
                    assert text_of(await shop.client.post(path, headers=ISSUER.headers(openid="o1"))) == "o1"
            with sweep.case("a view that the project has exempted"):
                assert text_of(await shop.client.post("/optional-exempt")) == "guest"
            for path in "/function", "/coroutine", "/class", "/class-later", "/as-view", "/dispatch", "/dispatch-later":
                with sweep.case(f"{path} as a user"):
                    assert text_of(await shop.client.post(path, headers=ISSUER.headers(openid="o1"))) == "o1"


@pytest.mark.parametrize("framework", ["Flask", "Sanic", "aiohttp"])
async def test_a_guarded_method_of_a_class_answers_its_own_requests(framework: str) -> None:
    async with SHOPS[framework]() as shop:
        assert text_of(await shop.client.post("/method", headers=ISSUER.headers(openid="o1"))) == "o1"
        with untouched():
            problem_of(await shop.client.post("/method"), "missing_token", 401)


async def test_rest_framework_keeps_the_projects_other_login() -> None:
    async with SHOPS["REST framework"]() as shop:
        asked = [
            ({"Authorization": "Token of-staff"}, 200),
            ({"Authorization": "Token of-nobody"}, 403),
            (ISSUER.headers(), 403),
            ({}, 401),
        ]
        for headers, status in asked:
            assert (await shop.client.get("/staff", headers=headers)).status_code == status
        answer = await shop.client.get("/function", headers={"Authorization": "Token unknown"})
        assert (answer.status_code, answer.json()) == (401, {"detail": "who is that?"})
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_user_in_rest_framework_can_be_copied_and_stored() -> None:
    import copy
    import pickle

    django_shop.set_up()
    from wxauth_guard.rest_framework import User

    with ISSUER.trusted_by(GUARD):
        user = User(GUARD.verify_sync(ISSUER.token(openid="o1")))
    for again in copy.copy(user), pickle.loads(pickle.dumps(user)):
        assert (again.openid, again.is_authenticated) == ("o1", True)


async def test_flask_fails_at_the_first_request_if_the_guard_stands_above_the_route() -> None:
    from flask import Flask

    from wxauth_guard.flask import bearer as decorator

    app = Flask("open")

    @decorator(GUARD)
    @app.get("/orders")
    def orders() -> str:
        return "open"

    app.testing = True
    with pytest.raises(RuntimeError, match="orders is open"):
        app.test_client().get("/orders")
    with pytest.raises(RuntimeError, match="orders is open"):
        app.test_client().get("/elsewhere")


async def test_flask_takes_a_view_that_several_guards_let_in() -> None:
    from flask import Flask

    from wxauth_guard.flask import bearer as decorator

    app = Flask("twice")

    def orders() -> str:
        return "orders"

    app.add_url_rule("/orders", "orders", decorator(GUARD)(orders))
    app.add_url_rule("/staff", "staff", decorator(GUARD, "clerk")(orders))
    async with client_by_wsgi(app) as client, trusted(client, ["/orders", "/staff"]) as shop:
        answers = [await shop.client.get(path, headers=ISSUER.headers()) for path in shop.paths]
        assert [answer.status_code for answer in answers] == [200, 403]


async def test_flask_fails_if_a_class_is_guarded_after_its_registration() -> None:
    from flask import Flask
    from flask.views import MethodView

    from wxauth_guard.flask import bearer as decorator

    class Orders(MethodView):
        def get(self) -> str:
            return "open"

    app = Flask("class")
    app.testing = True
    app.add_url_rule("/orders", view_func=Orders.as_view("orders"))
    decorator(GUARD)(Orders)
    with pytest.raises(RuntimeError, match="Orders is open"):
        app.test_client().get("/orders")


async def test_sanic_fails_at_once_if_the_guard_stands_above_the_route() -> None:
    from sanic import Sanic, text
    from sanic.views import HTTPMethodView

    from wxauth_guard.sanic import bearer as decorator

    Sanic._app_registry.clear()
    app: Any = Sanic("open", configure_logging=False)
    with pytest.raises(RuntimeError, match="orders is open"):

        @decorator(GUARD)
        @app.get("/orders")
        async def orders(request: Any) -> Any:
            return text("open")

    with pytest.raises(RuntimeError, match="Orders is open"):

        @decorator(GUARD)
        class Orders(HTTPMethodView, attach=app, uri="/attached"):
            async def get(self, request: Any) -> Any:
                return text("open")


@pytest.mark.parametrize("is_class", [False, True])
def test_sanic_fails_at_its_start_if_the_guard_stands_above_a_blueprints_route(is_class: bool) -> None:
    from sanic import Blueprint, Sanic, text
    from sanic.views import HTTPMethodView

    from wxauth_guard.sanic import bearer as decorator

    blueprint: Any = Blueprint("open")
    if is_class:

        @decorator(GUARD)
        class Orders(HTTPMethodView, attach=blueprint, uri="/orders"):
            async def get(self, request: Any) -> Any:
                return text("open")

    else:

        @decorator(GUARD)
        @blueprint.get("/orders")
        async def orders(request: Any) -> Any:
            return text("open")

    Sanic._app_registry.clear()
    app: Any = Sanic("open", configure_logging=False)
    app.blueprint(blueprint)
    with pytest.raises(RuntimeError, match="rders is open"):
        app.finalize()  # which a server does when it starts


async def test_in_aiohttp_only_the_order_shown_guards_a_route() -> None:
    from aiohttp import web

    from wxauth_guard.aiohttp import bearer as decorator

    routes = web.RouteTableDef()

    @routes.get("/guarded")
    @decorator(GUARD)
    async def below(request: web.Request) -> web.Response:
        return web.Response()

    @decorator(GUARD)
    @routes.get("/open")
    async def above(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with client_at(runner.addresses[0][1]) as client:
        assert [(await client.get(path)).status_code for path in ("/guarded", "/open")] == [401, 200]
    await runner.cleanup()


async def test_aiohttp_writes_no_refusal_into_a_response_that_has_begun() -> None:
    from aiohttp import web

    from wxauth_guard.aiohttp import bearer as decorator

    @decorator(GUARD)
    async def stream(request: web.Request) -> Any:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        require_roles(request["wxauth"], "clerk")

    @decorator(GUARD)
    async def socket(request: web.Request) -> Any:
        response = web.WebSocketResponse()
        await response.prepare(request)
        await response.send_str("begun")
        require_roles(request["wxauth"], "clerk")

    app = web.Application()
    app.add_routes([web.get("/stream", stream), web.get("/socket", socket)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    with ISSUER.trusted_by(GUARD):
        for path, more in {"/stream": {"Connection": "close"}, "/socket": upgrade | key}.items():
            headers = {"Host": "shop.test", **ISSUER.headers(), **more}
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            reader, writer = await asyncio.open_connection(*runner.addresses[0])
            writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
            answer = await reader.read()
            writer.close()
            assert (answer.count(b"begun"), answer.count(b"HTTP/1.1")) == (1, 1)
    await runner.cleanup()


def test_a_guarded_view_keeps_its_name_and_signature() -> None:
    import inspect

    def orders(request: Any, number: int) -> str:
        """Return orders."""
        return ""

    for module in ("aiohttp", "django", "flask", "sanic"):
        guarded = importlib.import_module(f"wxauth_guard.{module}").bearer(GUARD)(orders)
        assert (guarded.__name__, guarded.__doc__) == ("orders", "Return orders.")
        assert inspect.signature(guarded) == inspect.signature(orders)


@pytest.mark.parametrize("module", MODULES)
def test_roles_of_an_optional_user_are_a_mistake(module: str) -> None:
    if module in ("rest_framework", "tornado"):
        pytest.skip("has no decorator")
    with pytest.raises(ValueError, match="without roles"):
        importlib.import_module(f"wxauth_guard.{module}").bearer(GUARD, "clerk", optional=True)


@pytest.mark.process
@pytest.mark.parametrize("module", MODULES)
def test_a_module_whose_framework_is_absent_says_which(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None\nimport wxauth_guard.{module}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, "\nModuleNotFoundError: " in run.stderr) == (1, True), run.stderr


PAGE = (Path(__file__).parents[2] / "docs/build/siblings-frameworks.md").read_text()


def block(start: str) -> str:
    """Return the code block of the guide that begins like this.

    This function does not use tests.docs, which imports the service, because these tests also run with only the guard.
    """
    found = re.search(rf"```python\n({re.escape(start)}.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def run(start: str, name: str) -> dict[str, Any]:
    module = sys.modules[name] = ModuleType(name)
    exec(block(start), module.__dict__)
    return module.__dict__


async def answers_as_shown(client: httpx.AsyncClient, guard: Any) -> None:
    user, clerk = ISSUER.headers(openid="o1"), ISSUER.headers(roles=["clerk"])
    with ISSUER.trusted_by(guard):
        assert (await client.get("/orders", headers=user)).json()["openid"] == "o1"
        problem_of(await client.get("/orders"), "missing_token", 401)
        problem_of(await client.delete("/orders/7", headers=user), "insufficient_role", 403)
        assert (await client.delete("/orders/7", headers=clerk)).status_code == 204


async def test_flask_answers_as_the_guide_shows() -> None:
    shown = run("from flask import Flask", "flask_as_shown")
    async with client_by_wsgi(shown["app"]) as client:
        await answers_as_shown(client, shown["guard"])
        assert (await client.get("/welcome")).text == "welcome, guest"


async def test_tornado_answers_as_the_guide_shows() -> None:
    shown = run("from tornado.web", "tornado_as_shown")
    async with tornado_shop.client_of(shown["app"]) as client:
        await answers_as_shown(client, shown["Users"].guard)


async def test_tornado_calls_no_view_after_a_refusal_that_leaves_the_response_open() -> None:
    from tornado.web import Application

    from wxauth_guard.tornado import BearerHandler

    class Users(BearerHandler):
        guard = GUARD

        def refuse(self, refusal: WxAuthError) -> None:
            self.set_status(418)
            self.write({"code": refusal.code})

        def get(self) -> None:
            seen(self.wxauth)
            require_roles(self.wxauth, "clerk")

    async with tornado_shop.client_of(Application([("/", Users)])) as client, trusted(client, ["/"]):
        with untouched():
            answer = await client.get("/")
        assert (answer.status_code, answer.json()) == (418, {"code": "missing_token"})
        answer = await client.get("/", headers=ISSUER.headers())
        assert (answer.status_code, answer.json()) == (418, {"code": "insufficient_role"})

    with pytest.raises(TypeError, match="must not be a coroutine function"):

        class Later(BearerHandler):
            async def refuse(self, refusal: WxAuthError) -> None:
                raise NotImplementedError


async def test_a_view_in_django_that_answers_by_itself_gets_no_preflight() -> None:
    import django.http
    import django.test
    import django.views

    from wxauth_guard.django import bearer as decorator

    @decorator(GUARD)
    class Orders(django.views.View):
        def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            seen(None)
            return django.http.HttpResponse("orders")

    request = django.test.RequestFactory().options("/", headers=PREFLIGHT)
    with untouched():
        assert Orders.as_view()(request).status_code == 401


STARTED = """
import django.conf
apps = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "rest_framework"]
django.conf.settings.configure(INSTALLED_APPS=apps, REST_FRAMEWORK=REST_FRAMEWORK)
django.setup()
import rest_framework.views
print(*(each.__name__ for each in rest_framework.views.APIView.authentication_classes))
print(rest_framework.views.APIView().get_exception_handler().__name__)
"""


@pytest.mark.process
def test_rest_framework_starts_with_the_settings_that_the_guide_shows(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/authentication.py").write_text(block("# shop/authentication.py"))
    command = [sys.executable, "-c", block("# shop/settings.py") + STARTED]
    # sys.path can contain relative paths, and the command runs in another folder.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    printed = subprocess.check_output(command, cwd=tmp_path, env=env, text=True)
    assert printed == "Login SessionAuthentication\nexception_handler\n"


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


ATOMIC = """
import sys
import django.conf
import django.urls
django.conf.settings.configure(
    ROOT_URLCONF="__main__",
    SECRET_KEY="no secret",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "ATOMIC_REQUESTS": True}},
    REST_FRAMEWORK={"EXCEPTION_HANDLER": sys.argv[1]},
)
django.setup()
import django.core.management
import django.test
from django.contrib.auth.models import Group
from django.http import HttpResponse
from rest_framework.views import APIView
from wxauth_guard import BearerGuard, require_roles
from wxauth_guard.django import bearer
from wxauth_guard.rest_framework import BearerAuthentication
from wxauth_guard.testing import TestIssuer

ISSUER = TestIssuer(issuer="http://127.0.0.1:8000")

class Login(BearerAuthentication):
    guard = BearerGuard(issuer=ISSUER.issuer)

@bearer(Login.guard)
def plain(request):
    Group.objects.create(name="plain")
    require_roles(request.wxauth, *request.GET)
    return HttpResponse()

class Rest(APIView):
    authentication_classes = [Login]

    def get(self, request):
        Group.objects.create(name="rest")
        require_roles(request.user.wxauth, *request.GET)
        return HttpResponse()

urlpatterns = [django.urls.path("plain", plain), django.urls.path("rest", Rest.as_view())]
django.core.management.call_command("migrate", verbosity=0)
client = django.test.Client()
with ISSUER.trusted_by(Login.guard):
    for url in "/plain?clerk", "/rest?clerk":
        print(client.get(url, headers=ISSUER.headers()).status_code, Group.objects.count())
    for url in "/plain", "/rest":
        print(client.get(url, headers=ISSUER.headers()).status_code, Group.objects.count())
"""


@pytest.mark.process
@pytest.mark.parametrize("handler", ["wxauth_guard.rest_framework.exception_handler", "__main__.refuse"])
def test_django_keeps_nothing_that_a_refused_view_has_stored(handler: str) -> None:
    shown = block("from rest_framework.response") if handler.startswith("__main__") else ""
    script = ATOMIC.replace("django.setup()\n", f"django.setup()\n{shown}\n")
    printed = subprocess.check_output([sys.executable, "-c", script, handler], text=True)
    assert printed == "403 0\n403 0\n200 1\n200 2\n"


@pytest.mark.process
def test_rest_framework_refuses_in_the_projects_own_envelope() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    script = ENVELOPE.format(shown=block("from rest_framework.response"))
    refused, gone = subprocess.check_output([sys.executable, "-c", script], env=env, text=True).splitlines()
    assert re.fullmatch(r'401 401 登录已过期.* Bearer error="invalid_token"', refused)
    assert gone == "404 None None None"
