"""Sites built with unmodified foreign libraries work with a running `wxauth-desk dev`."""

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs import ROOT, block, code_blocks, guide
from tests.foreign.sign_ins import CALLBACK, come_and_go_with_authlib
from tests.processes import WXAUTH_DESK, Running, free_port
from tests.programs import NODE_TESTS, needs, needs_relying_parties, run_node_tests
from tests.world import bearer, until
from wxauth_desk.wechat import ACCOUNT, WEBSITE

pytestmark = pytest.mark.process

GUIDE = guide("openid-provider")
DJANGO = """
from {settings} import *

SECRET_KEY = "known to the site alone"
ALLOWED_HOSTS = ["127.0.0.1"]
CONTRIB = [f"django.contrib.{{name}}" for name in ("auth", "contenttypes", "messages", "sessions")]
INSTALLED_APPS = [*CONTRIB, *{apps}]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    *{middleware},
]
OPTIONS = {{"context_processors": ["django.template.context_processors.request"]}}
TEMPLATES = [{{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": OPTIONS}}]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "site.sqlite3"}}}}
ROOT_URLCONF = "site_urls"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "/"
"""
DJANGO_URLS = """
from django.contrib.auth import logout
from django.http import JsonResponse
from django.urls import include, path


def home(request):
    user = request.user
    return JsonResponse({{"user": {{"id": {user_id}, "name": user.first_name}} if user.is_authenticated else None}})


def sign_out(request):
    logout(request)
    return home(request)


urlpatterns = [path("{prefix}", include("{urls}")), path("logout", sign_out), path("", home)]
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The URLs of the services, and the secrets of the sites."""
    folder = tmp_path_factory.mktemp("sites")
    ports = [str(free_port()) for _ in range(4)]
    options = [
        word for pair in zip(("--port", "--wechat-port", "--site-port"), ports[:3], strict=True) for word in pair
    ]
    env = {"WXAUTH_SCAN_RATE_LIMIT": "600/minute"}  # all tests use one address
    with Running(WXAUTH_DESK, "dev", *options, cwd=folder, env=env) as running:
        running.wait_for("Press Ctrl-C to stop")
        command = str(folder / ".wxauth/wxauth")
        apps = ("--account", ACCOUNT["app_id"], "--website", WEBSITE["app_id"])
        uris = ("--redirect-uri", CALLBACK, "--logout-uri", "http://127.0.0.1/bye", *apps)
        callbacks = [f"--redirect-uri=http://127.0.0.1{product.callback}" for product in PRODUCTS.values()]
        sites = (*callbacks, "--logout-uri=http://127.0.0.1/", "--logout-uri=http://127.0.0.1/logout")
        shown = code_blocks(GUIDE, "sh")[0].replace("\\\n", "")
        shown = shown.replace("https://portal.example.com", "http://127.0.0.1")
        portal = (*shlex.split(shown)[3:], f"--backchannel-logout-uri=http://127.0.0.1:{ports[3]}/backchannel-logout")

        def secret_of(*words: str) -> str:
            adding = [command, "clients", "add", *words, "--json"]
            return str(json.loads(subprocess.check_output(adding, text=True)).get("client_secret"))

        secret_of("page", "--public", *uris)
        yield {
            "WXAUTH": command,
            "PYTHON_SECRET": secret_of("python", *sites),
            "PYTHON_NO_PKCE_SECRET": secret_of("python-no-pkce", "--no-pkce", *sites),
            "SERVICE_URL": f"http://127.0.0.1:{ports[0]}",
            "SHOP_SECRET": secret_of("shop", "--device", *uris),
            "LEGACY_SECRET": secret_of("legacy", "--no-pkce", *uris),
            "PORTAL_PORT": ports[3],
            "PORTAL_SECRET": secret_of(*portal),
        }


@pytest.mark.node
@pytest.mark.requirement("asvs-10.1.1")
@pytest.mark.parametrize("file", ["relying_party", "sites"])
def test_sites_of_other_libraries_log_people_in(world: dict[str, str], file: str) -> None:
    run_node_tests(f"oauth/{file}.test.js", world)


@pytest.mark.node
@pytest.mark.browser
@pytest.mark.parametrize("file", ["oidc_client_ts", "form_post"])
def test_a_page_or_a_form_in_a_browser_logs_people_in(world: dict[str, str], file: str) -> None:
    chromium = needs("chromium-headless-shell", "chromium")
    run_node_tests(f"oauth/{file}.test.js", {**world, "CHROMIUM": chromium})


@pytest.mark.node
@pytest.mark.parametrize("library", ["auth_js", "better_auth"])
def test_a_library_that_is_set_up_as_the_example_shows(world: dict[str, str], library: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples/nextjs", tmp_path, dirs_exist_ok=True)
    for shown in code_blocks(guide(library.replace("_", "-")), "js"):
        if named := re.match(r"// ([\w.]+\.js)\n", shown):
            file = tmp_path / named[1]
            assert not file.exists() or file.read_text() == shown
            file.write_text(shown)
    (tmp_path / "node_modules").symlink_to(NODE_TESTS / "node_modules")
    run_node_tests(f"oauth/{library}.test.js", {**world, "GUIDE": str(tmp_path)})


async def by_scan(browser: httpx.AsyncClient, url: str, phone: dict[str, str], verdict: str = "approve") -> str:
    """Scan the QR code on the browser's page, approve or deny, and return the URL that the browser opens next."""
    page = (await browser.get(url)).text
    scene = re.findall(r"/v1/scans/([\w-]{22})/code", page)[0]
    claimed = await browser.post("/v1/me/scans", json={"scene": scene, "entry_scene": 1047}, headers=phone)
    await browser.post(f"/v1/me/scans/{claimed.json()['id']}/{verdict}", json={"login_code": "alice"}, headers=phone)
    back = await browser.get(re.findall(r'href="(/v1/authorize/[\w-]{22}/next)"', page)[0])
    return back.headers["location"]


@pytest.mark.parametrize("name", ["shop", "page"])  # tests/deploy/test_compose.py tests the other ways
async def test_authlib_logs_in_and_out(world: dict[str, str], name: str) -> None:
    async with httpx.AsyncClient(base_url=world["SERVICE_URL"], trust_env=False) as browser:
        await come_and_go_with_authlib(browser, name, world["SHOP_SECRET"] if name == "shop" else None, by_scan)


@dataclass(frozen=True, slots=True)
class Product:
    """A Python product set up as the guide shows, with its paths for login, redirect and sign-out."""

    begin: str
    callback: str
    end: str
    flask: str = ""
    """The name of the guide's module that contains the site."""
    django: Mapping[str, Any] = field(default_factory=dict)
    """The guide's settings, and the parts that a site of this product adds to Django."""
    client: str = "python"
    ends_session: bool = True
    """Whether the product's sign-out also ends wxauth's session."""


PRODUCTS = {
    "Authlib in Flask": Product("GET /login", "/callback", "GET /logout", flask="authlib_site"),
    "mozilla-django-oidc": Product(
        "GET /oidc/authenticate/",
        "/oidc/callback/",
        "POST /oidc/logout/",
        django={
            "settings": "oidc_settings",
            "apps": ["mozilla_django_oidc"],
            "middleware": [],
            "prefix": "oidc/",
            "urls": "mozilla_django_oidc.urls",
            "user_id": "user.username",
        },
    ),
    "django-allauth": Product(
        "POST /accounts/oidc/wxauth/login/",
        "/accounts/oidc/wxauth/login/callback/",
        "POST /accounts/logout/",
        django={
            "settings": "allauth_settings",
            "apps": [
                f"allauth{name}"
                for name in ("", ".account", ".socialaccount", ".socialaccount.providers.openid_connect")
            ],
            "middleware": ["allauth.account.middleware.AccountMiddleware"],
            "prefix": "accounts/",
            "urls": "allauth.urls",
            "user_id": "user.socialaccount_set.get().uid",
        },
        ends_session=False,
    ),
    "social-auth in Django": Product(
        "POST /social/login/oidc/",
        "/social/complete/oidc/",
        "GET /logout",
        django={
            "settings": "social_settings",
            "apps": ["social_django"],
            "middleware": ["social_django.middleware.SocialAuthExceptionMiddleware"],
            "prefix": "social/",
            "urls": "social_django.urls",
            "user_id": "user.username",
        },
        ends_session=False,
    ),
    "flask-oidc": Product("GET /login", "/authorize", "GET /sign-out", flask="flask_oidc_site"),
    "Flask-pyoidc": Product(
        "GET /login", "/callback", "GET /logout", flask="flask_pyoidc_site", client="python-no-pkce"
    ),
    "pyoidc in Flask": Product("GET /login", "/callback", "GET /logout", flask="pyoidc_site"),
}


@pytest.mark.parametrize("name", PRODUCTS)
async def test_a_python_product_logs_in_and_out_as_is_shown(world: dict[str, str], name: str, tmp_path: Path) -> None:
    product, python, port = PRODUCTS[name], needs_relying_parties(), str(free_port())
    shutil.copytree(ROOT / "examples/openid", tmp_path, dirs_exist_ok=True)
    site = f"http://127.0.0.1:{port}"
    env = {
        "WXAUTH_ISSUER": world["SERVICE_URL"],
        "WXAUTH_CLIENT_ID": product.client,
        "WXAUTH_CLIENT_SECRET": world[product.client.upper().replace("-", "_") + "_SECRET"],
        "SITE_URL": site,
        "SESSION_SECRET": "known to the site alone",
        "DJANGO_SETTINGS_MODULE": "site_settings",
        "PYTHONPATH": str(tmp_path),
        "NO_PROXY": "127.0.0.1",
    }
    command, ready = ["flask", "--app", product.flask, "run", "--port"], "Running on "
    if product.django:
        (tmp_path / "site_settings.py").write_text(DJANGO.format(**product.django))
        (tmp_path / "site_urls.py").write_text(DJANGO_URLS.format(**product.django))
        migrate = [python, "-m", "django", "migrate", "-v0"]
        await asyncio.to_thread(subprocess.run, migrate, cwd=tmp_path, env={**os.environ, **env}, check=True)
        command, ready = ["django", "runserver", "--noreload"], "Quit the server with"
    with Running(python, "-u", "-m", *command, port, cwd=tmp_path, env=env) as running:
        await asyncio.to_thread(running.wait_for, ready)
        async with httpx.AsyncClient(base_url=world["SERVICE_URL"], trust_env=False) as browser:
            login = (await browser.post("/v1/login", json={"code": "alice"})).json()
            phone = bearer(login)
            await browser.delete("/v1/me/sessions", headers=phone)  # ends the sessions of other products
            await browser.patch("/v1/me", json={"nickname": "小明"}, headers=phone)

            async def site_request(words: str) -> httpx.Response:
                method, path = words.split()
                return await browser.request(method, site + path)

            async def decided(verdict: str) -> httpx.Response:
                begun = await site_request(product.begin)
                back = await by_scan(browser, begun.headers["location"], phone, verdict)
                return await browser.get(back, follow_redirects=True)

            async def sites() -> list[str]:
                items = (await browser.get("/v1/me/sessions", headers=phone)).json()["items"]
                return [item["client_id"] for item in items if item["client_id"]]

            refused = await decided("deny")
            assert refused.status_code < 500, refused.text
            assert (await browser.get(site)).json() == {"user": None}
            admitted = await decided("approve")
            assert admitted.json() == {"user": {"id": login["user"]["id"], "name": "小明"}}, admitted.text
            assert await sites() == [product.client]
            left = await site_request(product.end)
            while left.has_redirect_location:
                left = await browser.get(left.url.join(left.headers["location"]))
            assert (await browser.get(site)).json() == {"user": None}
            assert await sites() == ([] if product.ends_session else [product.client])


@pytest.mark.node
@pytest.mark.browser
async def test_the_whole_site_shares_a_login_and_a_logout(world: dict[str, str], tmp_path: Path) -> None:
    sites = {name: f"http://127.0.0.1:{free_port()}" for name in ("shop-site", "admin-site")}
    app_dir = str(ROOT / "examples/site")
    async with AsyncExitStack() as stack:
        for name, site in sites.items():
            shown, start = block("docs/build/websites.md", "--app-dir").replace("\\\n", "").splitlines()[:2]
            adding = shlex.split(shown.replace("http://127.0.0.1:9000", site).replace("shop", name))[1:]
            added = await asyncio.to_thread(subprocess.check_output, [world["WXAUTH"], *adding, "--json"], text=True)
            secret = json.loads(added)["client_secret"]
            env = {"WXAUTH_ISSUER": world["SERVICE_URL"], "WXAUTH_CLIENT_ID": name, "WXAUTH_CLIENT_SECRET": secret}
            words = start.replace("examples/site", app_dir).replace("9000", site.rpartition(":")[2]).split()[2:]
            command = [sys.executable, "-m", "uvicorn", *words]
            env |= {"SITE_URL": site, "NO_PROXY": "127.0.0.1"}
            running = stack.enter_context(Running(*command, cwd=tmp_path, env=env))
            await asyncio.to_thread(running.wait_for, "Uvicorn running on")
        secrets = [tmp_path / f".{name}.secret" for name in sites]
        assert {oct(file.stat().st_mode)[-3:] for file in secrets} == {"600"}
        assert len({file.read_text() for file in secrets}) == 2
        browser = await stack.enter_async_context(httpx.AsyncClient(base_url=world["SERVICE_URL"], trust_env=False))
        phone = bearer((await browser.post("/v1/login", json={"code": "alice"})).json())
        await browser.patch("/v1/me", json={"nickname": "<小明>"}, headers=phone)
        shop, admin = sites.values()

        async def begun(site: str) -> str:
            return (await browser.get(f"{site}/login")).headers["location"]

        refused = await browser.get(await by_scan(browser, await begun(shop), phone, "deny"))
        assert (refused.status_code, "access_denied" in refused.text) == (403, True)
        await browser.get(await by_scan(browser, await begun(shop), phone))
        logged_in, logged_out = await browser.get(shop), await browser.get(admin)
        assert "&lt;小明&gt;" in logged_in.text
        assert "/login" in logged_out.text
        for name, answer in {"refused": refused, "in": logged_in, "out": logged_out}.items():
            (tmp_path / f"{name}.html").write_text(answer.text)
        question = await browser.get(await begun(admin))
        back = await browser.post(re.findall(r'action="([^"]+)"', question.text)[0])
        await browser.get(back.headers["location"])
        assert "&lt;小明&gt;" in (await browser.get(admin)).text
        left = await browser.post(f"{shop}/logout", follow_redirects=True)
        assert (str(left.url), "/login" in left.text) == (f"{shop}/", True)

        async def admin_has_followed() -> bool:
            return "/login" in (await browser.get(admin)).text

        await until(admin_has_followed)
    env = {"CHROMIUM": needs("chromium-headless-shell", "chromium"), "SITE": str(tmp_path), "PAGES": "refused in out"}
    await asyncio.to_thread(run_node_tests, "site/site.test.js", env)
