"""With `wxauth_guard.testing`, a sibling's tests need no service, no network and no waiting."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import httpx
import pytest
import respx
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests.clock import Clock
from tests.guard.fakes import client_of
from tests.guard.guarded_apps import orders_app
from tests.guard.hostile import decode
from tests.problems import problem_of
from tests.sweeps import swept
from wxauth_guard import BearerGuard, BearerMiddleware, Principal
from wxauth_guard.testing import USER_ID, TestIssuer


@pytest.fixture
def guard() -> BearerGuard:
    """Return the sibling's own guard, as defined at the top of a module."""
    return BearerGuard("https://auth.example.com", audience="orders")


@pytest.fixture
def app(guard: BearerGuard) -> FastAPI:
    return orders_app(guard)


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2026, 11, 20, 8, 0, tzinfo=timezone.utc))


@pytest.fixture
def issuer(clock: Clock) -> TestIssuer:
    return TestIssuer(clock=lambda: clock.now.timestamp())


@pytest.fixture
def no_network() -> Iterator[respx.MockRouter]:
    with respx.mock(assert_all_called=False) as router:
        router.route().mock(side_effect=httpx.ConnectError("no"))
        yield router


@pytest.fixture
async def client(
    app: FastAPI, guard: BearerGuard, issuer: TestIssuer, no_network: respx.MockRouter
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of a sibling whose guard is overridden."""
    app.dependency_overrides[guard] = issuer.guard()
    async with client_of(app) as client:
        yield client


async def principal(issuer: TestIssuer, **fields: Any) -> Principal:
    return await accepted_by(issuer.guard(websites=True), issuer, **fields)


async def accepted_by(guard: BearerGuard, issuer: TestIssuer, **fields: Any) -> Principal:
    header = issuer.headers(**fields)["Authorization"].encode()
    return await guard(HTTPConnection({"type": "http", "headers": [(b"authorization", header)]}))


# Tokens.


async def test_a_token_is_the_users_that_was_asked_for(issuer: TestIssuer) -> None:
    user_id, session_id = uuid4(), uuid4()
    user = await principal(
        issuer, user_id=user_id, roles=["clerk"], app_id="wxother", openid="o-1", session_id=str(session_id)
    )
    assert (user.id, user.session_id) == (user_id, session_id)
    assert (user.app_id, user.openid, user.roles) == ("wxother", "o-1", frozenset({"clerk"}))


async def test_a_token_without_arguments_is_the_same_users_each_time(issuer: TestIssuer) -> None:
    first, second = await principal(issuer), await principal(issuer)
    assert (first.id, first.app_id, first.roles) == (USER_ID, "wxtest", frozenset())
    assert (first.openid, first.session_id) == (second.openid, second.session_id)
    assert first.claims["jti"] != second.claims["jti"]


async def test_users_and_apps_do_not_share_openids_or_sessions(issuer: TestIssuer) -> None:
    users = [
        await principal(issuer),
        await principal(issuer, user_id=uuid4()),
        await principal(issuer, app_id="wxother"),
    ]
    assert len({user.openid for user in users}) == len({user.session_id for user in users}) == 3


async def test_issuer_audience_and_app_can_be_named() -> None:
    issuer = TestIssuer(issuer="https://auth.example.com", audience="orders", app_id="wxshop")
    claims = (await principal(issuer)).claims
    assert (claims["iss"], claims["aud"], claims["client_id"]) == ("https://auth.example.com", "orders", "wxshop")


@pytest.mark.parametrize("name", ["user_id", "session_id"])
def test_an_id_that_no_guard_would_accept_is_a_mistake_of_the_test(issuer: TestIssuer, name: str) -> None:
    wrong: dict[str, Any] = {name: "alice"}
    with pytest.raises(ValueError, match="UUID"):
        issuer.token(**wrong)


@pytest.mark.parametrize("fields", [{"roles": ["clerk"]}, {"app_id": "wxother"}, {"openid": "o-1"}], ids=str)
async def test_a_claim_that_a_documents_client_never_gets_is_a_mistake_of_the_test(
    issuer: TestIssuer, fields: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="roles, app_id or openid"):
        issuer.token(client_id="https://agent.test/client.json", scope="orders:read", **fields)
    website = await principal(issuer, client_id="shop", scope="openid", **fields)
    assert website.claims.items() >= fields.items()


async def test_claims_are_overridden_added_and_left_out(issuer: TestIssuer) -> None:
    user = await principal(issuer, roles=["clerk"], claims={"openid": "o-2", "shop": {"n": 7}, "roles": None})
    assert (user.openid, user.claims["shop"], "roles" in user.claims) == ("o-2", {"n": 7}, False)


@swept("claims", [{"aud": "other"}, {"iss": "https://other.test"}, {"sub": "alice"}, {"exp": None}, {"openid": None}])
async def test_a_wrong_claim_is_refused(client: httpx.AsyncClient, issuer: TestIssuer, claims: dict[str, Any]) -> None:
    problem_of(await client.get("/orders", headers=issuer.headers(claims=claims)), "invalid_token", 401)


async def test_a_token_may_have_expired_already(client: httpx.AsyncClient, issuer: TestIssuer) -> None:
    assert (await client.get("/orders", headers=issuer.headers(expires_in=-29))).status_code == 200
    problem_of(await client.get("/orders", headers=issuer.headers(expires_in=-31)), "token_expired", 401)


# Overrides of a sibling's guard.


async def test_an_override_refuses_as_the_guard_does(client: httpx.AsyncClient, issuer: TestIssuer) -> None:
    no_token = await client.get("/orders")
    problem_of(no_token, "missing_token", 401)
    assert no_token.headers["www-authenticate"] == "Bearer"
    problem_of(await client.get("/orders", headers=TestIssuer().headers()), "invalid_token", 401)
    problem_of(await client.delete("/orders/7"), "missing_token", 401)
    problem_of(await client.delete("/orders/7", headers=issuer.headers()), "insufficient_role", 403)
    by_admin = issuer.headers(roles=["admin"], openid="o-4")
    assert (await client.delete("/orders/7", headers=by_admin)).json() == "7 by o-4"


async def test_a_guard_in_middleware_trusts_the_issuer_while_a_block_runs(
    guard: BearerGuard, issuer: TestIssuer, no_network: respx.MockRouter
) -> None:
    async def orders(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["user"].openid)(scope, receive, send)

    async with client_of(BearerMiddleware(orders, guard)) as client:
        with issuer.trusted_by(guard):
            assert (await client.get("/", headers=issuer.headers(openid="o-7"))).text == "o-7"
        assert not no_network.calls
        assert (await client.get("/", headers=issuer.headers())).json()["code"] == "keys_unavailable"
        assert no_network.calls.last.request.url.host == "auth.example.com"


async def test_a_guard_is_its_own_again_after_a_test_that_failed(guard: BearerGuard, issuer: TestIssuer) -> None:
    own = dict(vars(guard))
    with pytest.raises(ZeroDivisionError), issuer.trusted_by(guard):
        raise ZeroDivisionError
    assert vars(guard) == own


async def test_a_guard_of_the_siblings_own_class_keeps_its_attributes(issuer: TestIssuer) -> None:
    class ShopGuard(BearerGuard):
        def __init__(self, shop: str) -> None:
            super().__init__("https://auth.example.com")
            self.shop = shop

    guard = ShopGuard("tea")
    with issuer.trusted_by(guard):
        await accepted_by(guard, issuer)
        assert guard.shop == "tea"
        guard.shop = "coffee"
    assert guard.shop == "coffee"


# Siblings that verify tokens with another library.


async def test_the_published_keys_check_the_tokens(issuer: TestIssuer) -> None:
    with respx.mock as router:
        router.get("https://auth.test/.well-known/oauth-authorization-server").respond(json=issuer.metadata)
        router.get(issuer.metadata["jwks_uri"]).respond(json=issuer.jwks)
        guard = BearerGuard("https://auth.test", clock=lambda: json.loads(decode(issuer.token().split(".")[1]))["iat"])
        assert (await accepted_by(guard, issuer, openid="o-8")).openid == "o-8"
