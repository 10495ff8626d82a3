"""The client for mini-programs runs in Node against the real service and the simulated WeChat."""

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.conftest import UNHURRIED
from tests.docs import block, both_languages, guide
from tests.fakes import Clock
from tests.processes import serving
from tests.programs import NODE_TESTS, run_node_tests
from wxauth.clients.clients import add_client
from wxauth.clients.models import Client
from wxauth.core.services import Services
from wxauth.core.trail import OPERATOR
from wxauth.core.users import UserStatus
from wxauth.service.app import create_app
from wxauth.service.build import build_services
from wxauth.settings.roles import ADMIN
from wxauth.settings.settings import Settings
from wxauth.users.admin import UserChange, change_user
from wxauth_desk.wechat import APPS, Simulator, create_simulator

pytestmark = pytest.mark.node

SITE = {
    "name": "shop",
    "title": "示例商店",
    "scopes": ["openid", "profile"],
    "redirect_uris": ["https://shop.example.com/callback"],
    "device": True,
    "id_token_alg": "RS256",
}
CLAIMS = {"role": "authenticated"}
"""The claims that Supabase needs, from docs/build/other-back-ends.md."""
CHANGES = {
    "/controls/bans": UserChange(status=UserStatus.DISABLED),
    "/controls/administrators": UserChange(granted_role=ADMIN),
}
FILES = sorted(str(file.relative_to(NODE_TESTS)) for file in NODE_TESTS.glob("miniprogram/*.test.js"))


@pytest.fixture
def world(make_settings: Callable[..., Settings], simulator: Simulator, clock: Clock) -> Iterator[dict[str, str]]:
    """The variables with which `world.js` finds a service on the test's clock."""
    with serving(create_simulator(simulator)) as wechat_url:
        settings = make_settings(
            apps=APPS, wechat_base_url=wechat_url, consents="privacy:2026-05,terms:3", claims=CLAIMS
        )
        services = build_services(settings, clock=clock, timeouts=UNHURRIED)
        with serving(with_controls(create_app(services), services, clock)) as service_url:
            yield {
                "SERVICE_URL": service_url,
                "WECHAT_URL": wechat_url,
                "APP_ID": APPS[0]["app_id"],
                "APP_SECRET": APPS[0]["app_secret"],
                "OTHER_APP_ID": APPS[1]["app_id"],
                "ACCESS_TOKEN_TTL": str(settings.access_token_ttl),
                "REFRESH_REUSE_GRACE": str(settings.refresh_reuse_grace),
            }


def with_controls(app: ASGIApp, services: Services, clock: Clock) -> ASGIApp:
    """Add routes for tests to the service."""

    async def advance(request: Request) -> Response:
        clock.advance(seconds=(await request.json())["seconds"])
        return JSONResponse({"now": clock().timestamp()})

    async def change(request: Request) -> Response:
        user_id = UUID((await request.json())["user_id"])
        await change_user(services.database, user_id, CHANGES[request.url.path], by=OPERATOR, now=clock())
        return Response(status_code=204)

    async def add_site(request: Request) -> Response:
        site = Client(**{**SITE, **await request.json()})
        credentials = await add_client(services.database, site, now=clock())
        assert credentials is not None
        return JSONResponse(credentials._asdict())

    controls = Starlette(
        routes=[
            Route("/controls/clock", advance, methods=["POST"]),
            *(Route(path, change, methods=["POST"]) for path in CHANGES),
            Route("/controls/sites", add_site, methods=["POST"]),
        ]
    )

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        is_control = scope["type"] == "http" and scope["path"].startswith("/controls/")
        await (controls if is_control else app)(scope, receive, send)

    return either


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.split("/")[1].removesuffix(".test.js"))
def test_the_client_for_mini_programs(file: str, world: dict[str, str]) -> None:
    run_node_tests(file, world)


@pytest.mark.parametrize("compiler", ["babel", "tsc"])
def test_the_client_compiled_to_es5_is_the_same(compiler: str, world: dict[str, str]) -> None:
    run_node_tests("miniprogram/compiled.js", {**world, "COMPILER": compiler})


@pytest.mark.foreign
@both_languages
def test_http_libraries_send_their_requests_with_the_guides_adapters(language: str, world: dict[str, str]) -> None:
    page = guide("mini-program-frameworks", language)
    names = {"LUCH": "luch-request", "AXIOS": "axios.create", "ALOVA": "createAlova"}
    blocks = {name: block(page, words) for name, words in names.items()}
    run_node_tests("adapters/adapters.test.js", {**world, **blocks})
