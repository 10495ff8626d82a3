"""`wxauth.guard` as sibling services use it: a plain FastAPI app that registers nothing, as the guides have it."""

import asyncio
import copy
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Annotated, Any

import httpx
import pytest
import websockets
from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import PlainTextResponse

from tests.guard.fakes import (
    ISSUER,
    SESSION_ID,
    USER_ID,
    FakeIssuer,
    Timer,
    client_of,
    opening,
)
from tests.headers import bearer
from tests.problems import problem_of
from tests.serving import serving
from tests.sweeps import Sweep, swept
from tests.tokens.hostile import EXPIRED, GOOD, HOSTILE, Forger
from wxauth.errors import WxAuthError
from wxauth.guard import BearerGuard, Principal
from wxauth.guard.jwks import RemoteKeys
from wxauth.problems import answer_problem
from wxauth.tokens.keys import SigningKey

Client = httpx.AsyncClient


@pytest.fixture
def app(guard: BearerGuard) -> FastAPI:
    app = FastAPI()

    @app.get("/orders")
    async def orders(user: Annotated[Principal, Depends(guard)]) -> dict[str, Any]:
        return {"of": user.id}

    @app.get("/me")
    async def me(user: Annotated[Principal, Depends(guard)]) -> Principal:
        return user

    @app.delete("/orders/{n}", dependencies=[Depends(guard.require_role("admin"))])
    async def erase(n: int) -> int:
        return n

    @app.get("/audit")
    async def audit(user: Annotated[Principal, Depends(guard.require_role("admin", "auditor"))]) -> dict[str, Any]:
        return {"by": user.openid}

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, user: Annotated[Principal, Depends(guard)]) -> None:
        await websocket.accept()
        await websocket.send_text(user.openid)

    @app.websocket("/ws/admin")
    async def ws_admin(websocket: WebSocket, user: Annotated[Principal, Depends(guard.require_role("admin"))]) -> None:
        await websocket.accept()
        await websocket.send_text(user.openid)

    return app


@pytest.fixture
async def sibling(app: FastAPI) -> AsyncIterator[Client]:
    async with client_of(app) as client:
        yield client


# Who it is.


async def test_a_valid_token_names_its_user(guard: BearerGuard, issuer: FakeIssuer) -> None:
    token = issuer.token("admin", "clerk")
    user = await guard(Request({"type": "http", "headers": [(b"authorization", f"Bearer {token}".encode())]}))
    assert (user.id, user.app_id, user.openid, user.session_id) == (USER_ID, "wxtest", "openid-alice", SESSION_ID)
    assert user.roles == frozenset({"admin", "clerk"})
    assert user.claims["iss"] == ISSUER
    assert dict(user.claims) == Forger(token, issuer.key).claims


async def test_a_websites_token_names_its_mini_program_and_its_scopes(guard: BearerGuard, issuer: FakeIssuer) -> None:
    claims = {"client_id": "shop", "app_id": "wxother", "scope": "openid profile", "external_id": "old-7"}
    user = await guard.verify(Forger(issuer.token(), issuer.key).with_claims(**claims))
    assert (user.app_id, user.claims["client_id"]) == ("wxother", "shop")
    assert (user.scope, user.external_id) == (frozenset({"openid", "profile"}), "old-7")
    user = await guard.verify(Forger(issuer.token(), issuer.key).with_claims(scope=" a  b\u2003c\n"))
    assert user.scope == {"a", "b\u2003c\n"}


async def test_a_mini_programs_token_has_neither_scope_nor_external_id(guard: BearerGuard, issuer: FakeIssuer) -> None:
    user = await guard.verify(issuer.token())
    assert (user.app_id, user.scope, user.external_id) == ("wxtest", frozenset(), None)


async def test_threads_and_event_loops_share_the_keys_and_the_verdict(guard: BearerGuard, issuer: FakeIssuer) -> None:
    with Sweep() as sweep:
        for name, forge in {**HOSTILE, **EXPIRED, **GOOD}.items():
            with sweep.case(name):
                token = forge(Forger(issuer.token(), issuer.key))
                said = [await outcome(guard.verify(token)), await outcome(asyncio.to_thread(guard.verify_sync, token))]
                assert said[0] == said[1]
    assert issuer.metadata.call_count <= 2  # the first, and that of an unknown kid


async def outcome(verifying: Awaitable[Principal]) -> Principal | tuple[str, str]:
    try:
        return await verifying
    except WxAuthError as refusal:
        return refusal.code, refusal.detail


def test_keys_are_read_at_one_place() -> None:
    with pytest.raises(ValueError, match="internal_url"):
        BearerGuard(ISSUER, internal_url="http://wxauth:8000", keys=RemoteKeys(ISSUER))
    with pytest.raises(ValueError, match="internal_url"):
        BearerGuard(ISSUER, internal_url="http://wxauth:8000/")


async def test_a_principal_cannot_be_changed(guard: BearerGuard, issuer: FakeIssuer) -> None:
    user = await guard.verify(issuer.token())
    with pytest.raises(dataclasses.FrozenInstanceError):
        user.openid = "openid-bob"  # type: ignore[misc]
    with pytest.raises(TypeError):
        user.claims["openid"] = "openid-bob"  # type: ignore[index]
    assert copy.deepcopy(user) == user
    assert {user: "may be a key"}[copy.copy(user)]


async def test_a_route_may_answer_the_principal_itself(sibling: Client, issuer: FakeIssuer) -> None:
    answer = await sibling.get("/me", headers=bearer(issuer.token("clerk")))
    assert answer.json() == {
        "id": str(USER_ID),
        "app_id": "wxtest",
        "openid": "openid-alice",
        "session_id": str(SESSION_ID),
        "roles": ["clerk"],
        "claims": Forger(issuer.token("clerk"), issuer.key).claims | {"jti": answer.json()["claims"]["jti"]},
        "external_id": None,
        "scope": [],
    }


# Refusals.


@pytest.mark.slow
async def test_every_hostile_token_is_refused_and_every_good_one_taken(sibling: Client, issuer: FakeIssuer) -> None:
    with Sweep() as sweep:
        for name, forge in {**HOSTILE, **EXPIRED, **GOOD}.items():
            with sweep.case(name):
                answer = await sibling.get("/orders", headers=bearer(forge(Forger(issuer.token(), issuer.key))))
                if name in GOOD:
                    assert answer.status_code == 200
                else:
                    problem_of(answer, "token_expired" if name in EXPIRED else "invalid_token", 401)
                    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_a_token_that_was_taken_is_refused_once_its_key_is_gone(
    sibling: Client, issuer: FakeIssuer, timer: Timer
) -> None:
    headers = bearer(issuer.token())
    assert (await sibling.get("/orders", headers=headers)).status_code == 200
    issuer.keys = [SigningKey.generate().public_jwk]
    timer.seconds += 300
    # The last request served by the old key set: the new set is fetched at the same time.
    await sibling.get("/orders", headers=headers)
    await sibling.get("/orders", headers=bearer(Forger(issuer.token(), issuer.key).with_header(kid="unknown")))
    answer = await sibling.get("/orders", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


async def test_a_refusal_is_a_problem_document_of_the_siblings_own(sibling: Client) -> None:
    answer = await sibling.get("/orders", headers={"X-Request-ID": "order-7.a_B", "Accept-Language": "zh-CN,zh;q=0.9"})
    document = problem_of(answer, "missing_token", 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert (document["title"], document["request_id"]) == ("请先登录。", "order-7.a_B")
    assert document["detail"] == "send the access token as 'Authorization: Bearer ...'"


@swept("scheme", ["Basic", "DPoP", "Token", "BearerBearer", ""])
async def test_a_token_by_another_scheme_is_no_token(sibling: Client, issuer: FakeIssuer, scheme: str) -> None:
    answer = await sibling.get("/orders", headers={"Authorization": f"{scheme} {issuer.token()}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "missing_token")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("place", ["query", "form", "cookie"])
async def test_a_token_is_read_only_from_the_header(sibling: Client, issuer: FakeIssuer, place: str) -> None:
    token = {"access_token": issuer.token()}
    answer = await sibling.request(
        "GET",
        "/orders",
        params=token if place == "query" else None,
        data=token if place == "form" else None,
        headers={"Cookie": f"access_token={token['access_token']}"} if place == "cookie" else None,
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "missing_token")


async def test_two_authorization_headers_are_a_bad_request(sibling: Client, issuer: FakeIssuer) -> None:
    answer = await sibling.get("/orders", headers=[("Authorization", f"Bearer {issuer.token()}")] * 2)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_no_key_and_no_issuer_is_503(sibling: Client, issuer: FakeIssuer) -> None:
    issuer.fails()
    answer = await sibling.get("/orders", headers=bearer(issuer.token()))
    assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert "auth.test" not in answer.text


# Roles.


async def test_a_role_admits_to_the_routes_that_require_the_role(sibling: Client, issuer: FakeIssuer) -> None:
    answer = await sibling.delete("/orders/7", headers=bearer(issuer.token("admin")))
    assert answer.json() == 7


@swept("roles", [(), ("clerk",), ("administrator",), ("Admin",)])
async def test_a_token_without_the_role_is_answered_with_403(
    sibling: Client, issuer: FakeIssuer, roles: tuple[str, ...]
) -> None:
    answer = await sibling.delete("/orders/7", headers=bearer(issuer.token(*roles)))
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_role")
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'


async def test_of_several_roles_all_are_demanded(sibling: Client, issuer: FakeIssuer) -> None:
    statuses = [
        (await sibling.get("/audit", headers=bearer(issuer.token(*roles)))).status_code
        for roles in (["admin"], ["auditor"], ["auditor", "clerk", "admin"])
    ]
    assert statuses == [403, 403, 200]


async def test_without_a_token_a_role_is_401(sibling: Client) -> None:
    assert (await sibling.delete("/orders/7")).status_code == 401


def test_demanding_no_role_is_a_mistake(guard: BearerGuard) -> None:
    with pytest.raises(TypeError):
        guard.require_role()  # type: ignore[call-arg]


@pytest.mark.process
def test_to_import_the_guard_costs_no_http_client() -> None:
    subprocess.run([sys.executable, "-c", "import sys, wxauth.guard; assert 'httpx' not in sys.modules"], check=True)


# In a sibling that has habits of its own.


async def test_a_siblings_own_handlers_stay_its_own(app: FastAPI, issuer: FakeIssuer) -> None:
    @app.exception_handler(HTTPException)
    async def answer_http(_: Request, error: HTTPException) -> PlainTextResponse:
        return PlainTextResponse("ours", status_code=error.status_code)

    @app.exception_handler(Exception)
    async def answer_any(_: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("oh dear", status_code=500)

    @app.exception_handler(401)
    async def answer_401(_: Request, error: HTTPException) -> PlainTextResponse:
        return PlainTextResponse("ours, too", status_code=401)

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError

    async with client_of(app) as sibling:
        assert (await sibling.get("/orders")).json()["code"] == "missing_token"
        assert (await sibling.delete("/orders/7", headers=bearer(issuer.token()))).json()["code"] == "insufficient_role"
        assert (await sibling.get("/teapot")).text == "ours"
        assert (await sibling.get("/broken")).text == "oh dear"


async def test_a_sibling_may_answer_refusals_its_own_way(app: FastAPI) -> None:
    @app.exception_handler(WxAuthError)
    async def answer_with_code(_: Request, error: WxAuthError) -> PlainTextResponse:
        return PlainTextResponse(error.code, status_code=error.status)

    async with client_of(app) as sibling:
        assert (await sibling.get("/orders")).text == "missing_token"


@pytest.fixture
def verifying(app: FastAPI, guard: BearerGuard) -> FastAPI:
    """The app, with a route and a WebSocket that call `verify` directly."""

    @app.get("/by-cookie")
    async def by_cookie(request: Request) -> str:
        return (await guard.verify(request.cookies["token"])).openid

    @app.websocket("/ws/by-message")
    async def by_message(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text((await guard.verify(await websocket.receive_text())).openid)

    @app.websocket("/ws/late")
    async def late(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        await guard(websocket)

    return app


async def test_an_error_raised_by_verify_belongs_to_the_route_even_after_a_refusal_of_the_guard(
    verifying: FastAPI,
) -> None:
    async with client_of(verifying) as sibling:
        cookie = {"Cookie": "token=nonsense"}
        assert (await sibling.get("/by-cookie", headers=cookie)).status_code == 500
        assert (await sibling.get("/orders")).status_code == 401
        assert (await sibling.get("/by-cookie", headers=cookie)).status_code == 500


async def test_an_error_raised_by_verify_is_answered_if_the_app_handles_it(verifying: FastAPI) -> None:
    verifying.add_exception_handler(WxAuthError, answer_problem)
    async with client_of(verifying) as sibling:
        answer = await sibling.get("/by-cookie", headers={"Cookie": "token=nonsense"})
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
        assert (await sibling.get("/orders")).json()["code"] == "missing_token"


async def test_a_guard_works_in_an_app_mounted_in_another(app: FastAPI, issuer: FakeIssuer) -> None:
    outer = FastAPI()
    outer.mount("/shop", app)
    async with client_of(outer) as client:
        assert (await client.get("/shop/orders")).json()["code"] == "missing_token"
        assert (await client.get("/shop/orders", headers=bearer(issuer.token()))).status_code == 200


async def test_a_siblings_tests_may_put_a_principal_in_the_guards_place(app: FastAPI, guard: BearerGuard) -> None:
    app.dependency_overrides[guard] = lambda: Principal(
        USER_ID, "wxtest", "openid-bob", SESSION_ID, frozenset({"admin", "auditor"}), {}
    )
    async with client_of(app) as sibling:
        assert (await sibling.get("/audit")).json() == {"by": "openid-bob"}


async def test_the_guard_is_listed_under_authorize_as_one_scheme(sibling: Client) -> None:
    schema = (await sibling.get("/openapi.json")).json()
    [(name, scheme)] = schema["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    assert [operation["security"] for operation in operations] == [[{name: []}]] * 4


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://auth.example.com", "http://auth.example.com is plain http to another machine"),
        ("http://127.0.0.1.example.com:80/a", "http://127.0.0.1.example.com:80 is plain http to another machine"),
        ("https://auth.example.com/", "https://auth.example.com has a slash at the end"),
        ("https://auth.example.com?a", "https://auth.example.com has a query or a fragment"),
        ("https://me@auth.example.com", "this one has a user"),
        ("ftp://auth.test", "this one does not begin with https://"),
        ("auth.test", "this one does not begin with https://"),
        ("https://:", "this one is no URL"),
        ("", "this one does not begin with https://"),
    ],
)
def test_an_issuer_that_is_refused_is_told_by_its_host_and_what_is_wrong(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=f": {re.escape(fault)}$"):
        BearerGuard(url)


@swept(
    "url",
    [
        "https://operator:password@auth.example.com",
        "https://operator@auth.example.com",
        "http://operator:password@127.0.0.1:8000",
        "https://operator:password/auth.example.com",
        "https://[password",
        "https://auth.example.com:password",
        "https://password\u2100.example.com",
        "https://auth.example.com/",
        "https://auth.example.com/password/",
        "https://auth.example.com?password",
        "https://auth.example.com?",
        "https://auth.example.com#password",
        "https://auth.example.com#",
        "https://auth.example.com:0",
        "https://auth.example.com\n",
        " https://auth.example.com",
        "https://auth.example.com\\password",
    ],
)
def test_an_issuer_is_host_and_path_alone_and_what_else_it_holds_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="without user, query, fragment") as refusal:
        BearerGuard(url)
    assert "password" not in str(refusal.value)
    assert refusal.value.__context__ is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"])
def test_an_issuer_on_loopback_may_be_plain_http(url: str) -> None:
    BearerGuard(url)


@pytest.mark.parametrize("nothing", [None, "", ["wxauth"], b"wxauth"])
def test_issuer_and_audience_are_text(nothing: Any) -> None:
    with pytest.raises(ValueError, match="string"):
        BearerGuard(ISSUER, nothing)
    with pytest.raises(ValueError, match="string"):
        BearerGuard(nothing, keys=RemoteKeys(ISSUER))


# WebSockets, through a real server.


@pytest.fixture
def server(app: FastAPI) -> Iterator[str]:
    with serving(app) as url:
        yield url.replace("http", "ws")


@pytest.mark.parametrize(("path", "roles"), [("/ws", ()), ("/ws/admin", ("admin",))])
async def test_a_good_token_opens_a_websocket(
    server: str, issuer: FakeIssuer, path: str, roles: tuple[str, ...]
) -> None:
    headers = {"Authorization": f"Bearer {issuer.token(*roles)}"}
    async with websockets.connect(f"{server}{path}", additional_headers=headers, proxy=None) as socket:
        assert await socket.recv() == "openid-alice"


@pytest.mark.parametrize(
    ("path", "authorization", "status", "code"),
    [
        ("/ws", None, 401, "missing_token"),
        ("/ws", "Bearer nonsense", 401, "invalid_token"),
        ("/ws/admin", "Bearer {token}", 403, "insufficient_role"),
    ],
)
async def test_a_websocket_is_refused_with_the_handshakes_status(
    server: str, issuer: FakeIssuer, path: str, authorization: str | None, status: int, code: str
) -> None:
    headers = {"Accept-Language": "zh_CN", "X-Request-ID": "ws-1"}
    if authorization is not None:
        headers["Authorization"] = authorization.format(token=issuer.token())
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await websockets.connect(f"{server}{path}", additional_headers=headers, proxy=None)
    response = refusal.value.response
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"].startswith("Bearer")
    problem = json.loads(response.body)
    assert (problem["code"], problem["request_id"], response.headers["x-request-id"]) == (code, "ws-1", "ws-1")


async def test_a_server_that_cannot_say_a_status_closes_with_1008_before_accepting(
    app: FastAPI, issuer: FakeIssuer
) -> None:
    assert await opening(app, "/ws", token=None) == [
        {"type": "websocket.close", "code": 1008, "reason": "missing_token"}
    ]
    assert await opening(app, "/ws/admin", token=issuer.token()) == [
        {"type": "websocket.close", "code": 1008, "reason": "insufficient_role"}
    ]


@pytest.mark.parametrize(("path", "code"), [("/ws/by-message", "invalid_token"), ("/ws/late", "missing_token")])
async def test_a_websocket_refused_after_it_was_accepted_is_closed_with_1008(
    verifying: FastAPI, path: str, code: str
) -> None:
    verifying.add_exception_handler(WxAuthError, answer_problem)
    with serving(verifying) as url:
        async with websockets.connect(f"{url.replace('http', 'ws')}{path}", proxy=None) as socket:
            await socket.send("nonsense")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
    assert closed.value.rcvd
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, code)


async def test_a_closed_websocket_is_not_closed_again(app: FastAPI, guard: BearerGuard) -> None:
    @app.websocket("/ws/closed")
    async def closed(websocket: WebSocket) -> None:
        await websocket.close(4000)
        await guard(websocket)

    assert await opening(app, "/ws/closed", token=None) == [{"type": "websocket.close", "code": 4000, "reason": ""}]
