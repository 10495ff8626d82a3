"""`wxauth_guard` works in a FastAPI app that registers nothing for it, as the guides show.

test_asgi.py tests the behavior that all frameworks have in common.
"""

import asyncio
import copy
import dataclasses
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from typing import Annotated, Any, Optional, Union

import httpx
import pytest
import websockets
from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import PlainTextResponse

from tests.guard.fakes import ISSUER, SESSION_ID, USER_ID, FakeIssuer, Timer, client_of, opening
from tests.guard.guarded_apps import orders_app
from tests.guard.hostile import EXPIRED, FOR_GUARDS, GOOD, HOSTILE, Forger
from tests.headers import bearer
from tests.problems import problem_of
from tests.serving import serving
from tests.sweeps import Sweep, swept
from wxauth_guard import BearerGuard, InsufficientScope, Principal, WxAuthError, require_roles
from wxauth_guard.jwks import RemoteKeys
from wxauth_guard.problems import answer_problem
from wxauth_guard.testing import TestKey


@pytest.fixture
def app(guard: BearerGuard) -> FastAPI:
    return orders_app(guard)


@dataclasses.dataclass(frozen=True)
class Sibling:
    """A guarded app, its issuer and a client. A test can add routes to the app before the first request."""

    app: FastAPI
    client: httpx.AsyncClient
    issuer: FakeIssuer

    async def get(self, path: str = "/orders", **options: Any) -> httpx.Response:
        return await self.client.get(path, **options)

    async def ask(self, *roles: str, path: str = "/orders", method: str = "GET") -> httpx.Response:
        """Send a request as a user with these roles."""
        return await self.client.request(method, path, headers=bearer(self.issuer.token(*roles)))


@pytest.fixture
async def sibling(app: FastAPI, issuer: FakeIssuer) -> AsyncIterator[Sibling]:
    async with client_of(app) as client:
        yield Sibling(app, client, issuer)


# The user in a token.


async def test_a_websites_token_names_its_mini_program_and_its_scopes(guard: BearerGuard, issuer: FakeIssuer) -> None:
    claims = {"client_id": "shop", "app_id": "wxother", "scope": "openid profile", "external_id": "old-7"}
    user = await guard.verify(Forger(issuer.token(), issuer.key).with_claims(**claims))
    assert (user.app_id, user.claims["client_id"]) == ("wxother", "shop")
    assert (user.scope, user.external_id) == (frozenset({"openid", "profile"}), "old-7")
    user = await guard.verify(Forger(issuer.token(), issuer.key).with_claims(scope=" a  b\u2003c\n"))
    assert user.scope == {"a", "b\u2003c\n"}


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


async def test_a_route_may_answer_the_principal_itself(sibling: Sibling, issuer: FakeIssuer) -> None:
    answer = await sibling.ask("clerk")
    assert answer.json() == {
        "id": str(USER_ID),
        "app_id": "wxtest",
        "openid": "openid-alice",
        "session_id": str(SESSION_ID),
        "roles": ["clerk"],
        "claims": Forger(issuer.token("clerk"), issuer.key).claims | {"jti": answer.json()["claims"]["jti"]},
        "external_id": None,
        "scope": [],
        "is_current": None,
    }


# Requests that are rejected.


@pytest.mark.slow
@pytest.mark.requirement("asvs-9.1.1")
async def test_every_hostile_token_is_refused_and_every_good_one_taken(sibling: Sibling, guard: BearerGuard) -> None:
    issuer, accepted = sibling.issuer, GOOD | FOR_GUARDS
    with Sweep() as sweep:
        for name, forge in {**HOSTILE, **EXPIRED, **accepted}.items():
            with sweep.case(name):
                token = forge(Forger(issuer.token(), issuer.key))
                answer = await sibling.get(headers=bearer(token))
                if name in accepted:
                    assert answer.status_code == 200
                else:
                    problem_of(answer, "token_expired" if name in EXPIRED else "invalid_token", 401)
                    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
                in_thread = await outcome(asyncio.to_thread(guard.verify_sync, token))
                assert in_thread == await outcome(guard.verify(token))
    assert issuer.metadata.call_count <= 2  # the first request and the one for an unknown kid


async def outcome(verifying: Awaitable[Principal]) -> Union[Principal, tuple[str, str]]:
    try:
        return await verifying
    except WxAuthError as refusal:
        return refusal.code, refusal.detail


async def test_a_token_that_was_taken_is_refused_once_its_key_is_gone(sibling: Sibling, timer: Timer) -> None:
    issuer = sibling.issuer
    headers = bearer(issuer.token())
    assert (await sibling.get(headers=headers)).status_code == 200
    issuer.keys = [TestKey().public_jwk]
    timer.seconds += 300
    # This is the last request that the old keys serve. During it, the guard fetches the new keys.
    await sibling.get(headers=headers)
    await sibling.get(headers=bearer(Forger(issuer.token(), issuer.key).with_header(kid="unknown")))
    problem_of(await sibling.get(headers=headers), "invalid_token", 401)


async def test_a_token_is_read_only_from_the_header(sibling: Sibling) -> None:
    token = {"access_token": sibling.issuer.token()}
    cookie = {"Cookie": f"access_token={token['access_token']}"}
    for answer in (
        await sibling.get(params=token),
        await sibling.get(headers=cookie),
        await sibling.client.request("GET", "/orders", data=token),
    ):
        problem_of(answer, "missing_token", 401)


async def test_no_key_and_no_issuer_is_503(sibling: Sibling) -> None:
    sibling.issuer.fails()
    answer = await sibling.ask()
    problem_of(answer, "keys_unavailable", 503)
    assert int(answer.headers["retry-after"]) > 0
    assert "auth.test" not in answer.text


# Roles.


def test_demanding_no_role_is_a_mistake(guard: BearerGuard) -> None:
    with pytest.raises(TypeError):
        guard.require_role()  # type: ignore[call-arg]


@pytest.mark.process
def test_to_import_the_guard_costs_no_http_client() -> None:
    subprocess.run([sys.executable, "-c", "import sys, wxauth_guard; assert 'httpx' not in sys.modules"], check=True)


# Siblings with their own error handlers and dependencies.


async def test_a_siblings_own_handlers_stay_its_own(sibling: Sibling) -> None:
    app = sibling.app

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

    problem_of(await sibling.get(), "missing_token", 401)
    problem_of(await sibling.ask(path="/orders/7", method="DELETE"), "insufficient_role", 403)
    assert (await sibling.get("/teapot")).text == "ours"
    assert (await sibling.get("/broken")).text == "oh dear"


async def test_a_sibling_may_answer_refusals_its_own_way(sibling: Sibling) -> None:
    @sibling.app.exception_handler(WxAuthError)
    async def answer_with_code(_: Request, error: WxAuthError) -> PlainTextResponse:
        return PlainTextResponse(error.code, status_code=error.status)

    assert (await sibling.get()).text == "missing_token"


@pytest.fixture
def refusing(sibling: Sibling, guard: BearerGuard) -> Sibling:
    """Return a sibling whose own code rejects tokens of websites, and users without a role or a scope."""
    app = sibling.app

    async def own(user: Annotated[Principal, Depends(guard)]) -> Principal:
        if "openid" in user.scope:
            raise InsufficientScope("this is not for websites")
        return user

    @app.get("/by-dependency")
    async def by_dependency(user: Annotated[Principal, Depends(own)]) -> str:
        return user.openid

    @app.get("/by-route")
    async def by_route(user: Annotated[Principal, Depends(guard)]) -> str:
        return (await own(user)).openid

    @app.get("/by-thread")
    def by_thread(user: Annotated[Principal, Depends(guard)]) -> None:
        guard.check_scopes(user, "orders:write")

    @app.get("/by-role")
    async def by_role(user: Annotated[Principal, Depends(own)]) -> None:
        require_roles(user, "clerk")

    @app.get("/by-guest")
    async def by_guest(user: Annotated[Optional[Principal], Depends(guard.optional)]) -> None:
        require_roles(user, "clerk")

    @app.websocket("/ws/by-dependency")
    async def by_websocket(websocket: WebSocket, user: Annotated[Principal, Depends(own)]) -> None:
        await websocket.accept()
        await websocket.send_text(user.openid)

    @app.get("/unguarded")
    async def unguarded() -> None:
        raise InsufficientScope("nobody has checked this user")

    return sibling


def website_token(issuer: FakeIssuer, *roles: str) -> str:
    return Forger(issuer.token(*roles), issuer.key).with_claims(scope="openid")


@pytest.mark.parametrize("path", ["/by-dependency", "/by-route", "/by-role", "/by-thread"])
async def test_a_route_refuses_a_website_as_the_guard_would_even_as_its_first_request(
    refusing: Sibling, path: str
) -> None:
    answer = await refusing.get(path, headers=bearer(website_token(refusing.issuer, "clerk")))
    problem_of(answer, "insufficient_scope", 403)


async def test_a_route_refuses_a_user_without_a_role_as_the_guard_would(refusing: Sibling) -> None:
    problem_of(await refusing.ask(path="/by-role"), "insufficient_role", 403)
    problem_of(await refusing.ask(path="/by-guest"), "insufficient_role", 403)
    problem_of(await refusing.get("/by-guest"), "missing_token", 401)
    assert (await refusing.ask("clerk", path="/by-guest")).status_code == 200


async def test_an_app_mounted_in_another_refuses_a_website_too(refusing: Sibling) -> None:
    outer = FastAPI()
    outer.mount("/shop", refusing.app)
    async with client_of(outer) as client:
        answer = await client.get("/shop/by-dependency", headers=bearer(website_token(refusing.issuer)))
    problem_of(answer, "insufficient_scope", 403)


async def test_a_websocket_of_a_website_is_refused_before_it_is_accepted(refusing: Sibling) -> None:
    sent = await opening(refusing.app, "/ws/by-dependency", token=website_token(refusing.issuer))
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "insufficient_scope"}]


async def test_a_route_without_a_guard_refuses_nobody_in_its_name(refusing: Sibling) -> None:
    assert (await refusing.get("/unguarded")).status_code == 500
    assert (await refusing.get("/by-dependency")).status_code == 401
    assert (await refusing.ask(path="/unguarded")).status_code == 500


@pytest.fixture
def verifying(sibling: Sibling, guard: BearerGuard) -> Sibling:
    """Return a sibling with routes and WebSockets that call `verify` directly."""
    app = sibling.app

    @app.get("/by-cookie")
    async def by_cookie(request: Request) -> str:
        return (await guard.verify(request.cookies["token"])).openid

    @app.get("/by-cookie/guarded", dependencies=[Depends(guard)])
    async def by_cookie_too(request: Request) -> str:
        return await by_cookie(request)

    @app.websocket("/ws/by-message")
    async def by_message(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text((await guard.verify(await websocket.receive_text())).openid)

    @app.websocket("/ws/late")
    async def late(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        await guard(websocket)

    return sibling


NONSENSE = {"Cookie": "token=nonsense"}


async def test_an_error_raised_by_verify_is_the_routes_even_after_a_refusal_of_the_guard(verifying: Sibling) -> None:
    assert (await verifying.get("/by-cookie", headers=NONSENSE)).status_code == 500
    assert (await verifying.get()).status_code == 401
    assert (await verifying.get("/by-cookie", headers=NONSENSE)).status_code == 500
    own = bearer(verifying.issuer.token())
    assert (await verifying.get("/by-cookie/guarded", headers={**NONSENSE, **own})).status_code == 500


async def test_an_error_raised_by_verify_is_answered_if_the_app_handles_it(verifying: Sibling) -> None:
    verifying.app.add_exception_handler(WxAuthError, answer_problem)
    problem_of(await verifying.get("/by-cookie", headers=NONSENSE), "invalid_token", 401)
    problem_of(await verifying.get(), "missing_token", 401)


async def test_a_guard_works_in_an_app_mounted_in_another(app: FastAPI, issuer: FakeIssuer) -> None:
    outer = FastAPI()
    outer.mount("/shop", app)
    async with client_of(outer) as client:
        problem_of(await client.get("/shop/orders"), "missing_token", 401)
        assert (await client.get("/shop/orders", headers=bearer(issuer.token()))).status_code == 200


async def test_a_siblings_tests_may_put_a_principal_in_the_guards_place(sibling: Sibling, guard: BearerGuard) -> None:
    bob = Principal(USER_ID, "wxtest", "openid-bob", SESSION_ID, frozenset({"admin", "auditor"}), {})
    sibling.app.dependency_overrides[guard] = lambda: bob
    assert (await sibling.get("/audit")).json() == {"by": "openid-bob"}


async def test_the_guard_is_listed_under_authorize_as_one_scheme(sibling: Sibling) -> None:
    schema = (await sibling.get("/openapi.json")).json()
    [(name, scheme)] = schema["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    assert [operation["security"] for operation in operations] == [[{name: []}]] * 3


@swept(
    ("url", "fault"),
    [
        ("http://auth.example.com", "http://auth.example.com is plain http to another machine"),
        ("http://127.0.0.1.example.com:80/a", "http://127.0.0.1.example.com:80 is plain http to another machine"),
        *((f"{ISSUER}{path}/", f"{ISSUER} has a slash at the end") for path in ("", "/password")),
        *((f"{ISSUER}{more}", f"{ISSUER} has a query or a fragment") for more in ("?password", "?", "#password", "#")),
        ("https://operator:password@auth.test", "this one has a user"),
        ("https://operator@auth.test", "this one has a user"),
        ("http://operator:password@127.0.0.1:8000", "this one has a user"),
        *((url, "this one does not begin with https://") for url in ("ftp://auth.test", "auth.test", "", f" {ISSUER}")),
        ("https://operator:password/auth.example.com", "this one is no URL"),
        ("https://[password", "this one is no URL"),
        ("https://:", "this one is no URL"),
        (f"{ISSUER}:password", "this one is no URL"),
        ("https://password\u2100.example.com", "this one is no URL"),
        (f"{ISSUER}\\password", "this one is no URL"),
        (f"{ISSUER}:0", f"{ISSUER}:0 is no URL"),
        (f"{ISSUER}\n", f"{ISSUER} is no URL"),
    ],
)
def test_an_issuer_that_is_refused_is_told_by_its_host_and_what_is_wrong(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=f"without user, query, fragment .*: {re.escape(fault)}$") as refusal:
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


# WebSockets on a real server.


@pytest.mark.parametrize(("path", "code"), [("/ws/by-message", "invalid_token"), ("/ws/late", "missing_token")])
async def test_a_websocket_refused_once_accepted_is_closed_with_1008(verifying: Sibling, path: str, code: str) -> None:
    verifying.app.add_exception_handler(WxAuthError, answer_problem)
    with serving(verifying.app) as url:
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


# Apps that also have public pages or another login.


async def test_an_app_may_be_guarded_as_a_whole_but_for_its_open_pages(guard: BearerGuard, issuer: FakeIssuer) -> None:
    app = FastAPI(dependencies=[Depends(guard.optional)])

    @app.get("/")
    async def welcome(user: Annotated[Optional[Principal], Depends(guard.optional)]) -> str:
        return "guest" if user is None else user.openid

    @app.get("/orders")
    async def orders(user: Annotated[Principal, Depends(guard)]) -> str:
        return user.openid

    async with client_of(app) as client:
        for headers, path, answered in (
            ({}, "/", (200, "guest")),
            ({"Authorization": "Basic YTpi"}, "/", (200, "guest")),
            (bearer(issuer.token()), "/", (200, "openid-alice")),
            (bearer(issuer.token()), "/orders", (200, "openid-alice")),
        ):
            answer = await client.get(path, headers=headers)
            assert (answer.status_code, answer.json()) == answered
        problem_of(await client.get("/", headers=bearer("no")), "invalid_token", 401)
        problem_of(await client.get("/orders"), "missing_token", 401)
        assert (await client.get("/docs")).status_code == 200
