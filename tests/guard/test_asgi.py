"""The guard works in FastAPI, in Starlette, in Litestar and without a framework."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional
from urllib.parse import unquote

import httpx
import pytest
import websockets
from litestar import (
    Litestar,
    Request as LitestarRequest,
    WebSocket as LitestarWebSocket,
    asgi as litestar_asgi,
    get as litestar_get,
    websocket as litestar_websocket,
)
from litestar.config.cors import CORSConfig
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from tests.guard.fakes import USER_ID, FakeIssuer, client_of, messages_sent, opening
from tests.guard.guarded_apps import fastapi_app, plain_app
from tests.headers import bearer
from tests.problems import problem_of
from tests.serving import serving
from tests.sweeps import swept
from wxauth_guard import BearerGuard, BearerMiddleware, BearerWSGIMiddleware, WxAuthError, require_roles
from wxauth_guard.errors import InvalidToken
from wxauth_guard.problems import answer_problem

ORIGIN = "https://shop.test"


def starlette_app(guard: BearerGuard, **options: Any) -> ASGIApp:
    async def orders(request: Request) -> Response:
        return JSONResponse({"of": str(request.user.id)})

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("user" if "user" in request.scope else "nobody")

    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.user.openid)
        await websocket.close()

    return Starlette(
        routes=[Route("/orders", orders), Route("/healthz", healthz), WebSocketRoute("/ws", ws)],
        middleware=[Middleware(BearerMiddleware, guard=guard, **options)],
    )


def litestar_app(guard: BearerGuard, **options: Any) -> ASGIApp:
    @litestar_get("/orders", sync_to_thread=False)
    def orders(request: LitestarRequest[Any, Any, Any]) -> dict[str, str]:
        return {"of": str(request.user.id)}

    @litestar_get("/healthz", sync_to_thread=False)
    def healthz(request: LitestarRequest[Any, Any, Any]) -> str:
        return "user" if "user" in request.scope else "nobody"

    @litestar_websocket("/ws")
    async def ws(socket: LitestarWebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_text(socket.user.openid)
        await socket.close()

    return guarded_litestar([orders, healthz, ws], guard, **options)


def guarded_litestar(
    handlers: list[Any], guard: BearerGuard, *, cors_config: Optional[CORSConfig] = None, **options: Any
) -> ASGIApp:
    middleware: Any = BearerMiddleware  # Litestar uses its own types for ASGI
    app: Any = Litestar(
        handlers,
        middleware=[DefineMiddleware(middleware, guard=guard, **options)],
        cors_config=cors_config,
        openapi_config=None,
        logging_config=None,  # otherwise Litestar configures logging for the whole process
    )
    return app


MIDDLEWARE = {"Starlette": starlette_app, "Litestar": litestar_app, "plain ASGI": plain_app}
APPS: dict[str, Callable[..., ASGIApp]] = {"FastAPI": fastapi_app, **MIDDLEWARE}


@dataclass(frozen=True)
class Guarded:
    """A framework in which the tests make guarded apps and send them requests.

    Each app has `/orders` and `/ws`. An app that is guarded by middleware has `/healthz` too.
    """

    app: Callable[..., ASGIApp]
    """A function that makes an app, and takes the middleware's options."""
    issuer: FakeIssuer

    async def get(self, path: str = "/orders", *, headers: Any = None, **options: Any) -> httpx.Response:
        async with client_of(self.app(**options)) as client:
            return await client.get(path, headers=headers)


@pytest.fixture(params=[*APPS.values()], ids=[*APPS])
def guarded(request: pytest.FixtureRequest, guard: BearerGuard, issuer: FakeIssuer) -> Guarded:
    return Guarded(partial(request.param, guard), issuer)


@pytest.fixture(params=[*MIDDLEWARE.values()], ids=[*MIDDLEWARE])
def middleware(request: pytest.FixtureRequest, guard: BearerGuard, issuer: FakeIssuer) -> Guarded:
    return Guarded(partial(request.param, guard), issuer)


async def asked_for(app: ASGIApp, sent: str, *, root_path: str = "", gives_raw_path: bool = True) -> int:
    """Return the response's status for a path exactly as it was sent. A request with httpx would normalize the path."""
    path = {"path": unquote(sent), "raw_path": sent.encode() if gives_raw_path else None, "root_path": root_path}
    start, *_ = await messages_sent(app, {"type": "http", "scheme": "https", "method": "GET", "headers": [], **path})
    return start["status"]


async def test_the_user_counts_as_authenticated_where_starlettes_users_do(
    guard: BearerGuard, issuer: FakeIssuer
) -> None:
    async def me(request: Request) -> Response:
        return JSONResponse(request.user.is_authenticated)

    app = Starlette(routes=[Route("/me", me)], middleware=[Middleware(BearerMiddleware, guard=guard)])
    async with client_of(app) as client:
        assert (await client.get("/me", headers=bearer(issuer.token()))).json() is True


# Requests that are rejected.


async def test_a_refusal_is_the_guards_own_problem_document(guarded: Guarded) -> None:
    answer = await guarded.get(headers={"Accept-Language": "zh_CN", "X-Request-ID": "order-7"})
    problem = problem_of(answer, "missing_token", 401)
    assert (problem["title"], problem["request_id"]) == ("请先登录。", "order-7")
    assert problem["detail"] == "send the access token as 'Authorization: Bearer ...'"
    assert answer.headers["www-authenticate"] == "Bearer"
    closed = {"type": "websocket.close", "code": 1008, "reason": "missing_token"}
    assert await opening(guarded.app(), "/ws", token=None) == [closed]


async def test_two_authorization_headers_are_a_bad_request(guarded: Guarded) -> None:
    one = f"Bearer {guarded.issuer.token()}"
    for two in ([("Authorization", one)] * 2, [("Authorization", f"{one}, {one}")]):  # a proxy might join the headers
        problem_of(await guarded.get(headers=two), "invalid_request", 400)


async def test_an_error_raised_by_the_app_is_left_to_the_app(guard: BearerGuard, issuer: FakeIssuer) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise InvalidToken("of another kind")

    async with client_of(BearerMiddleware(app, guard)) as client:
        answer = await client.get("/orders", headers=bearer(issuer.token()))
    assert (answer.status_code, answer.content) == (500, b"")


# Roles.


@swept(
    ("demanded", "held", "status"),
    [
        (["admin"], ["admin"], 200),
        (["admin", "clerk"], ["clerk", "admin", "auditor"], 200),
        (["admin", "clerk"], ["admin"], 403),
        (["admin"], [], 403),
        ("admin", ["admin"], 200),
        ("admin", list("admin"), 403),
        ("admin", ["Admin", "administrator"], 403),
    ],
)
async def test_a_token_must_have_each_role(guarded: Guarded, demanded: Any, held: list[str], status: int) -> None:
    token = guarded.issuer.token(*held)
    answer = await guarded.get(headers=bearer(token), roles=demanded)
    assert answer.status_code == status
    said = await opening(guarded.app(roles=demanded), "/ws", token=token)
    if status == 403:
        problem_of(answer, "insufficient_role", 403)
        assert "www-authenticate" not in answer.headers
        assert said == [{"type": "websocket.close", "code": 1008, "reason": "insufficient_role"}]
    else:
        assert answer.json() == {"of": str(USER_ID)}
        assert said[0]["type"] == "websocket.accept"


async def test_a_route_may_demand_more_than_the_app(guard: BearerGuard, issuer: FakeIssuer) -> None:
    async def erase(request: Request) -> Response:
        return PlainTextResponse(request.user.openid)

    app = Starlette(
        routes=[Route("/erase", erase, middleware=[Middleware(BearerMiddleware, guard=guard, roles=["admin"])])],
        middleware=[Middleware(BearerMiddleware, guard=guard)],
    )
    async with client_of(app) as client:
        answers = [await client.get("/erase", headers=bearer(issuer.token(*roles))) for roles in ([], ["admin"])]
    problem_of(answers[0], "insufficient_role", 403)
    assert answers[1].text == "openid-alice"


# Public paths.


@pytest.mark.parametrize("path", ["/healthz", "/healthz?x=/orders", "/health%7A"])
async def test_a_public_path_looks_at_no_token(middleware: Guarded, path: str) -> None:
    for headers in ({}, bearer(middleware.issuer.token()), bearer("nonsense")):
        answer = await middleware.get(path, headers=headers, public=["/healthz"])
        assert (answer.status_code, answer.text) == (200, "nobody")
    assert middleware.issuer.fetches == (0, 0)


@swept(
    "path",
    [
        "/",
        "//healthz",
        "/healthz/",
        "/healthz//",
        "/./healthz",
        "/%2e/healthz",
        "/%2f/healthz",
        "/%2fhealthz",
        "/healthz%2f",
        "/healthz%2f..%2forders",
        "/healthz/../orders",
        "/healthz%00",
        "/healthz%0a",
        "/healthz%20",
        "/healthz%3fx",
        "/healthz;x",
        "/healthz.json",
        "/HEALTHZ",
        "/health%257A",
        "/orders/healthz",
        "/orders?path=/healthz",
        "/orders%3f/healthz",
        "/%EF%BC%8Fhealthz",
    ],
)
async def test_no_other_path_is_treated_as_public(guard: BearerGuard, path: str) -> None:
    for app in (starlette_app, plain_app):
        assert await asked_for(app(guard, public=["/healthz"]), path) == 401
    # Litestar's router runs before any middleware, so an unknown path returns 404.
    is_known = path in ("//healthz", "/healthz/", "/%2fhealthz", "/healthz%2f")
    assert await asked_for(litestar_app(guard, public=["/healthz"]), path) in ((401,) if is_known else (401, 404))


async def test_every_method_of_a_path_that_is_not_public_is_guarded(guard: BearerGuard) -> None:
    async with client_of(plain_app(guard, public=["/healthz"])) as client:
        for method in ("HEAD", "OPTIONS", "POST", "DELETE", "TRACE", "BREW"):
            answer = await client.request(method, "/orders", headers={"Access-Control-Request-Method": "GET"})
            assert answer.status_code == 401


@swept(
    ("path", "statuses"),
    [
        *((path, {200}) for path in ("/api/healthz", "/healthz")),
        *((path, {401, 404}) for path in ("/api/api/healthz", "/apihealthz", "/api//healthz", "/api/api", "/api")),
    ],
)
async def test_a_public_path_is_the_apps_wherever_the_app_is_served(
    middleware: Guarded, path: str, statuses: set[int]
) -> None:
    app = middleware.app(public=["/healthz", "/api/orders"])
    assert await asked_for(app, path, root_path="/api") in statuses
    assert await asked_for(app, path, root_path="/api", gives_raw_path=False) in (401, 404)


async def test_a_mounted_apps_public_paths_are_its_own(guard: BearerGuard) -> None:
    shop = starlette_app(guard, public=["/healthz"])

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("outer")

    inner = Starlette(routes=[Mount("/shop", shop), Mount("/guarded", BearerMiddleware(shop, guard))])
    outer = Starlette(
        routes=[Mount("/v1", inner), Route("/healthz", healthz)],
        middleware=[Middleware(BearerMiddleware, guard=guard, public=["/healthz", "/v1/shop/healthz"])],
    )
    async with client_of(inner) as client:
        assert (await client.get("/shop/healthz")).status_code == 200
        assert (await client.get("/guarded/healthz")).status_code == 401
    async with client_of(outer) as client:
        assert (await client.get("/healthz")).text == "outer"
        assert (await client.get("/v1/shop/healthz")).text == "nobody"
        assert (await client.get("/v1/healthz")).status_code == 401


@pytest.mark.parametrize("path", ["/files", "/files/", "/files/healthz", "/files/healthz/", "/files//healthz"])
async def test_a_litestar_mount_is_not_public_by_the_rest_of_its_path(guard: BearerGuard, path: str) -> None:
    @litestar_asgi("/files", is_mount=True, copy_scope=True)
    async def files(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("secret")(scope, receive, send)

    public = ["/", "/healthz", "/healthz/"]
    app = guarded_litestar([files], guard, public=public)
    assert await asked_for(app, path) == 401
    assert await asked_for(app, path, gives_raw_path=False) == 401


def test_a_public_path_without_a_slash_is_a_mistake(guard: BearerGuard) -> None:
    for middleware in (plain_app, partial(BearerWSGIMiddleware, lambda *_: [])):
        with pytest.raises(ValueError, match="slash"):
            middleware(guard=guard, public=["healthz"])


# Apps with other middleware, and apps on a real server.


async def test_cors_outside_answers_the_preflight_and_marks_the_refusal(guard: BearerGuard) -> None:
    cors: dict[str, Any] = {"allow_origins": [ORIGIN], "allow_headers": ["Authorization"]}
    asking = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "Authorization"}
    for app in (CORSMiddleware(starlette_app(guard), **cors), litestar_app(guard, cors_config=CORSConfig(**cors))):
        async with client_of(app) as client:
            preflight = await client.options("/orders", headers={"Origin": ORIGIN, **asking})
            refusal = await client.get("/orders", headers={"Origin": ORIGIN})
        assert preflight.status_code in (200, 204)
        assert refusal.status_code == 401
        assert {answer.headers["access-control-allow-origin"] for answer in (preflight, refusal)} == {ORIGIN}


async def test_the_lifespan_is_the_apps_own(guard: BearerGuard) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete", "scope": scope["type"], "has_user": "user" in scope})

    [message] = await messages_sent(BearerMiddleware(app, guard, roles=["admin"]), {"type": "lifespan"})
    assert (message["scope"], message["has_user"]) == ("lifespan", False)


async def test_a_real_server_refuses_a_websocket_with_the_handshakes_status(guarded: Guarded) -> None:
    with serving(guarded.app(roles=["admin"])) as url:
        url, issuer = url.replace("http", "ws") + "/ws", guarded.issuer
        for token, status, code, challenge in (
            ("nonsense", 401, "invalid_token", 'Bearer error="invalid_token"'),
            (issuer.token(), 403, "insufficient_role", None),
        ):
            with pytest.raises(websockets.InvalidStatus) as refusal:
                await websockets.connect(url, additional_headers={"Authorization": f"Bearer {token}"}, proxy=None)
            response = refusal.value.response
            assert (response.status_code, json.loads(response.body)["code"]) == (status, code)
            assert response.headers.get("www-authenticate") == challenge
        headers = {"Authorization": f"Bearer {issuer.token('admin')}"}
        async with websockets.connect(url, additional_headers=headers, proxy=None) as socket:
            assert await socket.recv() == "openid-alice"


# Apps that also have public pages or another login.


def greeting_app(guard: BearerGuard) -> ASGIApp:
    """Make an app that greets users by openid, and that has a page for users and a page for clerks."""

    async def welcome(request: Request) -> Response:
        return PlainTextResponse(getattr(request.user, "openid", str(request.user)))

    async def orders(request: Request) -> Response:
        require_roles(request.user)
        return PlainTextResponse(request.user.openid)

    async def refunds(request: Request) -> Response:
        require_roles(request.user, "clerk")
        return PlainTextResponse(request.user.openid)

    app = Starlette(
        routes=[Route("/", welcome), Route("/orders", orders), Route("/refunds", refunds)],
        exception_handlers={WxAuthError: answer_problem},
        middleware=[Middleware(BearerMiddleware, guard=guard, optional=True)],
    )

    async def with_staff(scope: Scope, receive: Receive, send: Send) -> None:
        if dict(scope.get("headers", ())).get(b"cookie"):
            scope["user"] = "staff"
        await app(scope, receive, send)

    return with_staff


async def test_an_optional_guard_knows_its_users_and_leaves_everybody_else_to_the_app(
    guard: BearerGuard, issuer: FakeIssuer
) -> None:
    user, clerk = bearer(issuer.token()), bearer(issuer.token("clerk"))
    staff, basic, forged = {"Cookie": "staff=1"}, {"Authorization": "Basic YTpi"}, bearer("no")
    async with client_of(greeting_app(guard)) as client:
        for headers, path, answered in (
            ({}, "/", (200, "None")),
            (basic, "/", (200, "None")),
            ({"Authorization": "Bearer "}, "/", (200, "None")),
            (staff, "/", (200, "staff")),
            (user, "/", (200, "openid-alice")),
            ({**staff, **user}, "/", (200, "openid-alice")),
            (forged, "/", (401, "invalid_token")),
            ({**staff, **forged}, "/", (401, "invalid_token")),
            ({"Authorization": "Basic YTpi, Bearer x"}, "/", (400, "invalid_request")),
            ({}, "/orders", (401, "missing_token")),
            (basic, "/orders", (401, "missing_token")),
            (user, "/orders", (200, "openid-alice")),
            ({}, "/refunds", (401, "missing_token")),
            (user, "/refunds", (403, "insufficient_role")),
            (clerk, "/refunds", (200, "openid-alice")),
            ({}, "/nowhere", (404, "Not Found")),
        ):
            answer = await client.get(path, headers=headers)
            told = answer.json()["code"] if "json" in answer.headers["content-type"] else answer.text
            assert (answer.status_code, told) == answered, (headers, path)


def test_a_guard_is_not_optional_where_roles_are_required(guard: BearerGuard) -> None:
    for middleware in (BearerMiddleware, BearerWSGIMiddleware):
        with pytest.raises(ValueError, match="without roles"):
            middleware(None, guard, roles=["clerk"], optional=True)  # type: ignore[arg-type]
