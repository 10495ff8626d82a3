"""The plan "Basic OP" of the OpenID Foundation's conformance suite, each test named as its module."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import asyncpg
import httpx
import pytest
from jose import jwt

from tests.fakes import Clock
from tests.websites.browsers import ASKED, VERIFIER, Browser, Tab, id_claims, refused, sent
from tests.world import CALLBACK, AddSite, GetPhone, Phone, Site, bearer

NUMBER = "+8613800138000"


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    scopes = ["openid", "profile", "email", "phone", "offline_access"]
    return await add_site(sso=True, pkce="optional", scopes=scopes, email_domain="wx.invalid")


@pytest.fixture
def browser(make_browser: Callable[[], Browser]) -> Browser:
    return make_browser()


@pytest.fixture
async def alice(get_phone: GetPhone) -> Phone:
    phone = await get_phone("alice")
    assert (await phone.ask("PATCH", json={"nickname": "Alice"})).status_code == 200
    return phone


def plain(**parameters: str | None) -> dict[str, str | None]:
    """The suite's ordinary request has no PKCE, and the scope `openid` alone."""
    return {"scope": "openid", "code_challenge": None, "code_challenge_method": None, **parameters}


async def redeemed(shop: Site, code: str, **form: str) -> httpx.Response:
    return await shop.post("/v1/token", grant_type="authorization_code", code=code, redirect_uri=CALLBACK, **form)


async def tokens_for(shop: Site, code: str, **form: str) -> dict[str, Any]:
    answer = await redeemed(shop, code, **form)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


async def logged_in(shop: Site, browser: Browser, alice: Phone, **parameters: str | None) -> dict[str, Any]:
    """The tokens of a login by a scan."""
    reported = await (await browser.show(**plain(**parameters))).approved_by(alice)
    return await tokens_for(shop, reported["code"])


async def silently(shop: Site, browser: Browser, **parameters: str | None) -> dict[str, Any]:
    """The tokens of a request that the browser's login answers without a page."""
    reported = sent(await browser.open(**plain(prompt="none", **parameters)))
    assert "code" in reported, reported
    return await tokens_for(shop, reported["code"])


async def userinfo(browser: Browser, tokens: dict[str, Any]) -> dict[str, Any]:
    answer = await browser.client.get("/v1/userinfo", headers=bearer(tokens))
    assert answer.status_code == 200, answer.text
    return answer.json()


def shows_login(answer: httpx.Response) -> bool:
    return answer.status_code == 200 and "/v1/scans/" in answer.text


def shows_mistake(answer: httpx.Response) -> bool:
    return answer.status_code == 400 and "location" not in answer.headers


async def test_oidcc_server(shop: Site, browser: Browser, alice: Phone, clock: Clock) -> None:
    reported = await (await browser.show(**plain())).approved_by(alice)
    assert reported.keys() == {"code", "state", "iss"}
    assert (reported["state"], reported["iss"]) == ("s-1", "https://auth.test")
    tokens = await tokens_for(shop, reported["code"])
    assert tokens["token_type"].lower() == "bearer"
    assert tokens["expires_in"] > 0
    claims = await id_claims(shop.client, tokens["id_token"])  # checks signature, iss, aud
    assert (claims["sub"], claims["nonce"]) == (alice.user_id, "n-1")
    now = clock().timestamp()
    assert claims["auth_time"] <= claims["iat"] <= now < claims["exp"]
    assert await userinfo(browser, tokens) == {"sub": alice.user_id}


@pytest.mark.usefixtures("shop")
async def test_oidcc_response_type_missing(browser: Browser) -> None:
    reported = sent(await browser.open(**plain(response_type=None)))
    assert (reported["error"], reported["state"]) == ("invalid_request", "s-1")


async def test_oidcc_idtoken_signature(shop: Site, browser: Browser, alice: Phone) -> None:
    token = (await logged_in(shop, browser, alice))["id_token"]
    header = jwt.get_unverified_header(token)
    assert header["alg"] == "RS256"
    keys = (await browser.client.get("/.well-known/jwks.json")).json()["keys"]
    assert [key["kid"] for key in keys].count(header["kid"]) == 1
    await id_claims(shop.client, token)


async def test_oidcc_userinfo_get(shop: Site, browser: Browser, alice: Phone) -> None:
    tokens = await logged_in(shop, browser, alice)
    answer = await browser.client.get("/v1/userinfo", headers=bearer(tokens))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["sub"] == jwt.get_unverified_claims(tokens["id_token"])["sub"]


async def test_oidcc_userinfo_post_header(shop: Site, browser: Browser, alice: Phone) -> None:
    tokens = await logged_in(shop, browser, alice)
    answer = await browser.client.post("/v1/userinfo", headers=bearer(tokens))
    assert answer.json() == {"sub": alice.user_id}


async def test_oidcc_userinfo_post_body(shop: Site, browser: Browser, alice: Phone) -> None:
    tokens = await logged_in(shop, browser, alice)
    answer = await browser.client.post("/v1/userinfo", data={"access_token": tokens["access_token"]})
    assert answer.json() == {"sub": alice.user_id}


async def test_oidcc_ensure_request_without_nonce_succeeds_for_code_flow(
    shop: Site, browser: Browser, alice: Phone
) -> None:
    tokens = await logged_in(shop, browser, alice, nonce=None)
    assert "nonce" not in await id_claims(shop.client, tokens["id_token"])


async def test_oidcc_scope_profile(shop: Site, browser: Browser, alice: Phone) -> None:
    claims = await userinfo(browser, await logged_in(shop, browser, alice, scope="openid profile"))
    assert (claims["sub"], claims["name"]) == (alice.user_id, "Alice")
    assert type(claims["updated_at"]) is int


async def test_oidcc_scope_email(shop: Site, browser: Browser, alice: Phone) -> None:
    claims = await userinfo(browser, await logged_in(shop, browser, alice, scope="openid email"))
    email = f"{alice.user_id}@wx.invalid"
    assert claims == {"sub": alice.user_id, "email": email, "email_verified": False}


async def test_oidcc_scope_address(shop: Site, browser: Browser, alice: Phone) -> None:
    """The scope is not supported: it changes nothing."""
    tokens = await logged_in(shop, browser, alice, scope="openid address")
    assert tokens["scope"] == "openid"
    assert await userinfo(browser, tokens) == {"sub": alice.user_id}


async def have_number(rows: asyncpg.Connection) -> None:
    await rows.execute("UPDATE users SET phone = $1, phone_verified_at = now()", NUMBER)


async def test_oidcc_scope_phone(shop: Site, browser: Browser, alice: Phone, rows: asyncpg.Connection) -> None:
    await have_number(rows)
    claims = await userinfo(browser, await logged_in(shop, browser, alice, scope="openid phone"))
    assert claims == {"sub": alice.user_id, "phone_number": NUMBER, "phone_number_verified": True}


async def test_oidcc_scope_all(shop: Site, browser: Browser, alice: Phone, rows: asyncpg.Connection) -> None:
    await have_number(rows)
    claims = await userinfo(browser, await logged_in(shop, browser, alice, scope="openid profile email address phone"))
    assert {"sub", "name", "updated_at", "email", "email_verified", "phone_number"} <= claims.keys()


async def test_oidcc_ensure_other_scope_order_succeeds(shop: Site, browser: Browser, alice: Phone) -> None:
    tokens = await logged_in(shop, browser, alice, scope="email openid")
    assert set(tokens["scope"].split()) == {"openid", "email"}
    assert (await userinfo(browser, tokens))["email"] == f"{alice.user_id}@wx.invalid"


@pytest.mark.slow
@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"display": "page"}, id="oidcc-display-page"),
        pytest.param({"display": "popup"}, id="oidcc-display-popup"),
        pytest.param({"extra": "foobar"}, id="oidcc-ensure-request-with-unknown-parameter-succeeds"),
        pytest.param({"login_hint": "bob@example.com"}, id="oidcc-login-hint"),
        pytest.param({"ui_locales": "se"}, id="oidcc-ui-locales"),
        pytest.param({"claims_locales": "se"}, id="oidcc-claims-locales"),
        pytest.param({"acr_values": "1 2"}, id="oidcc-ensure-request-with-acr-values-succeeds"),
    ],
)
async def test_a_request_succeeds_with(
    shop: Site, browser: Browser, alice: Phone, parameters: dict[str, str | None]
) -> None:
    tokens = await logged_in(shop, browser, alice, **parameters)
    assert (await id_claims(shop.client, tokens["id_token"]))["sub"] == alice.user_id


async def test_oidcc_prompt_login(shop: Site, browser: Browser, alice: Phone, clock: Clock) -> None:
    first = jwt.get_unverified_claims((await logged_in(shop, browser, alice))["id_token"])
    clock.advance(seconds=2)
    second = jwt.get_unverified_claims((await logged_in(shop, browser, alice, prompt="login"))["id_token"])
    assert second["sub"] == first["sub"]
    assert second["auth_time"] > first["auth_time"]


@pytest.mark.usefixtures("shop")
async def test_oidcc_prompt_none_not_logged_in(browser: Browser) -> None:
    reported = sent(await browser.open(**plain(prompt="none")))
    assert (reported["error"], reported["state"]) == ("login_required", "s-1")
    assert "code" not in reported


async def test_oidcc_prompt_none_logged_in(shop: Site, browser: Browser, alice: Phone, clock: Clock) -> None:
    first = jwt.get_unverified_claims((await logged_in(shop, browser, alice))["id_token"])
    clock.advance(seconds=2)
    second = jwt.get_unverified_claims((await silently(shop, browser))["id_token"])
    assert (second["sub"], second["auth_time"]) == (first["sub"], first["auth_time"])


async def test_oidcc_max_age_1(shop: Site, browser: Browser, alice: Phone, clock: Clock) -> None:
    first = jwt.get_unverified_claims((await logged_in(shop, browser, alice))["id_token"])
    clock.advance(seconds=2)
    second = jwt.get_unverified_claims((await logged_in(shop, browser, alice, max_age="1"))["id_token"])
    assert second["sub"] == first["sub"]
    assert second["auth_time"] > first["auth_time"]


async def test_oidcc_max_age_10000(shop: Site, browser: Browser, alice: Phone, clock: Clock) -> None:
    first = jwt.get_unverified_claims((await logged_in(shop, browser, alice))["id_token"])
    clock.advance(seconds=2)
    page = await browser.open(**plain(max_age="10000"))
    assert (page.status_code, shows_login(page), "/continue" in page.text) == (200, False, True)
    second = jwt.get_unverified_claims((await silently(shop, browser, max_age="10000"))["id_token"])
    assert (second["sub"], second["auth_time"]) == (first["sub"], first["auth_time"])


async def test_oidcc_id_token_hint(shop: Site, browser: Browser, alice: Phone) -> None:
    hint = (await logged_in(shop, browser, alice))["id_token"]
    tokens = await silently(shop, browser, id_token_hint=hint)
    assert jwt.get_unverified_claims(tokens["id_token"])["sub"] == alice.user_id


async def test_oidcc_codereuse(shop: Site, browser: Browser, alice: Phone) -> None:
    code = (await (await browser.show(**plain())).approved_by(alice))["code"]
    await tokens_for(shop, code)
    refused(await redeemed(shop, code), "invalid_grant")


async def test_oidcc_codereuse_30seconds(shop: Site, browser: Browser, alice: Phone, clock: Clock) -> None:
    code = (await (await browser.show(**plain())).approved_by(alice))["code"]
    tokens = await tokens_for(shop, code)
    clock.advance(seconds=30)
    refused(await redeemed(shop, code), "invalid_grant")
    assert (await browser.client.get("/v1/userinfo", headers=bearer(tokens))).status_code == 401
    refused(await shop.refresh(tokens), "invalid_grant")


@pytest.mark.usefixtures("shop")
async def test_oidcc_ensure_registered_redirect_uri(browser: Browser) -> None:
    assert shows_mistake(await browser.open(**plain(redirect_uri=f"{CALLBACK}/elsewhere")))


async def test_oidcc_ensure_post_request_succeeds(shop: Site, browser: Browser, alice: Phone) -> None:
    asked = {name: value for name, value in {**ASKED, **plain()}.items() if value is not None}
    page = await browser.client.post("/v1/authorize", data=asked)
    assert shows_login(page)
    reported = await Tab(browser, page.text).approved_by(alice)
    assert reported["state"] == "s-1"
    await tokens_for(shop, reported["code"])

    cross_site = await browser.client.post("/v1/authorize", data=asked, headers={"Sec-Fetch-Site": "cross-site"})
    assert cross_site.status_code == 303
    assert cross_site.headers["location"] == f"/v1/authorize?{urlencode(asked)}"


async def test_oidcc_server_client_secret_post(shop: Site, browser: Browser, alice: Phone) -> None:
    code = (await (await browser.show(**plain())).approved_by(alice))["code"]
    assert shop.secret is not None
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    credentials = {"client_id": shop.name, "client_secret": shop.secret}
    answer = await shop.client.post("/v1/token", data={**form, **credentials})
    assert answer.status_code == 200, answer.text
    assert (await id_claims(shop.client, answer.json()["id_token"]))["nonce"] == "n-1"


def request_object(**claims: str) -> str:
    return jwt.encode(claims, "", algorithm="HS256").rpartition(".")[0] + "."


@pytest.mark.usefixtures("shop")
async def test_oidcc_request_uri_unsigned_supported_correctly_or_rejected_as_unsupported(browser: Browser) -> None:
    reported = sent(await browser.open(**plain(request_uri="https://shop.example.com/request.jwt")))
    assert (reported["error"], reported["state"]) == ("request_uri_not_supported", "s-1")


@pytest.mark.usefixtures("shop")
async def test_oidcc_unsigned_request_object_supported_correctly_or_rejected_as_unsupported(browser: Browser) -> None:
    reported = sent(await browser.open(**plain(request=request_object(state="s-2"))))
    assert (reported["error"], reported["state"]) == ("request_not_supported", "s-1")


@pytest.mark.usefixtures("shop")
async def test_oidcc_ensure_request_object_with_redirect_uri(browser: Browser) -> None:
    registered, other = CALLBACK, "https://evil.example/callback"
    reported = sent(await browser.open(**plain(request=request_object(redirect_uri=other))))
    assert reported["error"] == "request_not_supported"
    hidden = await browser.open(**plain(redirect_uri=other, request=request_object(redirect_uri=registered)))
    assert shows_mistake(hidden)


async def test_oidcc_claims_essential(shop: Site, browser: Browser, alice: Phone) -> None:
    """`claims` is not supported, so it changes nothing, whatever its length and form."""
    claims = json.dumps({"userinfo": {"name": {"essential": True}}}, indent=2)
    tokens = await logged_in(shop, browser, alice, claims=claims)
    assert await userinfo(browser, tokens) == {"sub": alice.user_id}
    tokens = await logged_in(shop, browser, alice, claims=claims + " " * 5000, prompt="login", scope="openid profile")
    assert (await userinfo(browser, tokens))["name"] == "Alice"


async def test_oidcc_refresh_token(shop: Site, add_site: AddSite, browser: Browser, alice: Phone, clock: Clock) -> None:
    tokens = await logged_in(shop, browser, alice, scope="openid offline_access", prompt="consent")
    first = jwt.get_unverified_claims(tokens["id_token"])
    clock.advance(seconds=2)
    refused(await (await add_site("other")).refresh(tokens), "invalid_grant")
    answer = await shop.refresh(tokens)
    assert answer.status_code == 200, answer.text
    refreshed = answer.json()
    assert refreshed["access_token"] != tokens["access_token"]
    assert await userinfo(browser, refreshed) == {"sub": alice.user_id}
    second = await id_claims(shop.client, refreshed["id_token"])
    for name in ("iss", "sub", "aud", "auth_time"):
        assert second[name] == first[name]
    assert second["iat"] > first["iat"]


async def test_oidcc_ensure_request_with_valid_pkce_succeeds(shop: Site, browser: Browser, alice: Phone) -> None:
    reported = await (await browser.show(scope="openid")).approved_by(alice)
    refused(await redeemed(shop, reported["code"]), "invalid_grant")
    await tokens_for(shop, reported["code"], code_verifier=VERIFIER)
