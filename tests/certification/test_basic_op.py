"""The plan "Basic OP" of the OpenID Foundation's conformance suite, each case named as its module."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from jose import jwt

from tests.fakes import Clock
from tests.websites.browsers import ASKED, VERIFIER, Browser, Tab, id_claims, refused, sent
from tests.world import CALLBACK, AddSite, GetPhone, Phone, Rows, Site, bearer

NUMBER = "+8613800138000"
EMAIL = {"email": "{id}@wx.invalid", "email_verified": False}
OF_PHONE = {"phone_number": NUMBER, "phone_number_verified": True}
CLAIMS = json.dumps({"userinfo": {"name": {"essential": True}}}, indent=2)


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    scopes = ["openid", "profile", "email", "phone", "offline_access"]
    return await add_site(sso=True, pkce="optional", scopes=scopes, email_domain="wx.invalid")


@pytest.fixture
def browser(make_browser: Callable[[], Browser]) -> Browser:
    return make_browser()


@pytest.fixture
async def alice(get_phone: GetPhone, rows: Rows) -> Phone:
    phone = await get_phone("alice")
    await rows.execute("UPDATE users SET nickname = 'Alice', phone = $1, phone_verified_at = now()", NUMBER)
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


def claims_in(tokens: dict[str, Any]) -> dict[str, Any]:
    return jwt.get_unverified_claims(tokens["id_token"])


async def userinfo(browser: Browser, tokens: dict[str, Any]) -> dict[str, Any]:
    answer = await browser.client.get("/v1/userinfo", headers=bearer(tokens))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
    return answer.json()


async def test_oidcc_server_and_idtoken_signature(shop: Site, browser: Browser, alice: Phone, clock: Clock) -> None:
    reported = await (await browser.show(**plain())).approved_by(alice)
    assert reported.keys() == {"code", "state", "iss"}
    assert (reported["state"], reported["iss"]) == ("s-1", "https://auth.test")
    tokens = await tokens_for(shop, reported["code"])
    assert (tokens["token_type"].lower(), tokens["expires_in"] > 0) == ("bearer", True)
    claims = await id_claims(shop.client, tokens["id_token"])  # checks signature, its one key, iss, aud
    assert (claims["sub"], claims["nonce"]) == (alice.user_id, "n-1")
    assert claims["auth_time"] <= claims["iat"] <= clock().timestamp() < claims["exp"]


async def test_oidcc_userinfo_get_post_header_and_post_body(shop: Site, browser: Browser, alice: Phone) -> None:
    tokens = await logged_in(shop, browser, alice)
    assert await userinfo(browser, tokens) == {"sub": alice.user_id}
    for options in ({"headers": bearer(tokens)}, {"data": {"access_token": tokens["access_token"]}}):
        answer = await browser.client.post("/v1/userinfo", **options)  # type: ignore[arg-type]
        assert answer.json() == {"sub": alice.user_id}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "claims"),
    [
        pytest.param({"scope": "openid profile"}, {"name": "Alice", "updated_at": ...}, id="oidcc-scope-profile"),
        pytest.param({"scope": "openid email"}, EMAIL, id="oidcc-scope-email"),
        pytest.param({"scope": "openid address"}, {}, id="oidcc-scope-address"),
        pytest.param({"scope": "openid phone"}, OF_PHONE, id="oidcc-scope-phone"),
        pytest.param(
            {"scope": "openid profile email address phone"},
            {"name": "Alice", "updated_at": ..., **EMAIL, **OF_PHONE},
            id="oidcc-scope-all",
        ),
        pytest.param({"scope": "email openid"}, EMAIL, id="oidcc-ensure-other-scope-order-succeeds"),
        pytest.param({"nonce": None}, {}, id="oidcc-ensure-request-without-nonce-succeeds-for-code-flow"),
        pytest.param({"display": "page"}, {}, id="oidcc-display-page"),
        pytest.param({"display": "popup"}, {}, id="oidcc-display-popup"),
        pytest.param({"extra": "foobar"}, {}, id="oidcc-ensure-request-with-unknown-parameter-succeeds"),
        pytest.param({"login_hint": "bob@example.com"}, {}, id="oidcc-login-hint"),
        pytest.param({"ui_locales": "se"}, {}, id="oidcc-ui-locales"),
        pytest.param({"claims_locales": "se"}, {}, id="oidcc-claims-locales"),
        pytest.param({"acr_values": "1 2"}, {}, id="oidcc-ensure-request-with-acr-values-succeeds"),
        # Not supported, so it changes nothing, whatever its length and form.
        pytest.param({"claims": CLAIMS}, {}, id="oidcc-claims-essential"),
        pytest.param({"claims": CLAIMS + " " * 5000}, {}, id="oidcc-claims-essential, a long one"),
    ],
)
async def test_a_request_succeeds(
    shop: Site, browser: Browser, alice: Phone, parameters: dict[str, str | None], claims: dict[str, object]
) -> None:
    tokens = await logged_in(shop, browser, alice, **parameters)
    of_token = await id_claims(shop.client, tokens["id_token"])
    assert (of_token["sub"], of_token.get("nonce")) == (alice.user_id, parameters.get("nonce", "n-1"))
    assert set(tokens["scope"].split()) == set(parameters.get("scope", "openid").split()) - {"address"}  # type: ignore[union-attr]
    body = await userinfo(browser, tokens)
    expected = {
        name: value.format(id=alice.user_id) if isinstance(value, str) else value for name, value in claims.items()
    }
    assert {name: ... if name == "updated_at" else value for name, value in body.items()} == {
        "sub": alice.user_id,
        **expected,
    }
    assert type(body.get("updated_at", 0)) is int


@pytest.mark.parametrize("parameters", [{"prompt": "login"}, {"max_age": "1"}], ids=["prompt-login", "max-age-1"])
async def test_oidcc_the_person_logs_in_again(
    shop: Site, browser: Browser, alice: Phone, clock: Clock, parameters: dict[str, str]
) -> None:
    first = claims_in(await logged_in(shop, browser, alice))
    clock.advance(seconds=2)
    second = claims_in(await logged_in(shop, browser, alice, **parameters))
    assert (second["sub"], second["auth_time"]) == (first["sub"], first["auth_time"] + 2)


@pytest.mark.parametrize("more", ["prompt-none-logged-in", "max-age-10000", "id-token-hint"])
async def test_oidcc_the_browsers_login_answers(
    shop: Site, browser: Browser, alice: Phone, clock: Clock, more: str
) -> None:
    tokens = await logged_in(shop, browser, alice)
    clock.advance(seconds=2)
    asked: dict[str, str | None] = {"max_age": "10000"} if more == "max-age-10000" else {}
    if more == "id-token-hint":
        asked["id_token_hint"] = tokens["id_token"]
    page = await browser.open(**plain(**asked))
    assert ("/v1/scans/" in page.text, "/continue" in page.text) == (False, True)
    reported = sent(await browser.open(**plain(prompt="none", **asked)))
    again = claims_in(await tokens_for(shop, reported["code"]))
    first = claims_in(tokens)
    assert (again["sub"], again["auth_time"]) == (first["sub"], first["auth_time"])


@pytest.mark.parametrize("seconds", [0, 30], ids=["codereuse", "codereuse-30seconds"])
async def test_oidcc_codereuse(shop: Site, browser: Browser, alice: Phone, clock: Clock, seconds: int) -> None:
    code = (await (await browser.show(**plain())).approved_by(alice))["code"]
    tokens = await tokens_for(shop, code)
    clock.advance(seconds=seconds)
    refused(await redeemed(shop, code), "invalid_grant")
    assert (await browser.client.get("/v1/userinfo", headers=bearer(tokens))).status_code == 401
    refused(await shop.refresh(tokens), "invalid_grant")


async def test_oidcc_ensure_post_request_succeeds(shop: Site, browser: Browser, alice: Phone) -> None:
    asked = {name: value for name, value in {**ASKED, **plain()}.items() if value is not None}
    page = await browser.client.post("/v1/authorize", data=asked)
    reported = await Tab(browser, page.text).approved_by(alice)
    assert reported["state"] == "s-1"
    await tokens_for(shop, reported["code"])
    cross_site = await browser.client.post("/v1/authorize", data=asked, headers={"Sec-Fetch-Site": "cross-site"})
    assert (cross_site.status_code, cross_site.headers["location"]) == (303, f"/v1/authorize?{urlencode(asked)}")


async def test_oidcc_server_client_secret_post(shop: Site, browser: Browser, alice: Phone) -> None:
    code = (await (await browser.show(**plain())).approved_by(alice))["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    answer = await shop.client.post("/v1/token", data={**form, "client_id": shop.name, "client_secret": shop.secret})
    assert answer.status_code == 200, answer.text
    assert (await id_claims(shop.client, answer.json()["id_token"]))["nonce"] == "n-1"


def request_object(**claims: str) -> str:
    return jwt.encode(claims, "", algorithm="HS256").rpartition(".")[0] + "."


UNSIGNED = {"request": request_object(state="s-2")}
ELSEWHERE = {"request": request_object(redirect_uri="https://evil.example/callback")}


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        pytest.param({"response_type": None}, "invalid_request", id="oidcc-response-type-missing"),
        pytest.param({"prompt": "none"}, "login_required", id="oidcc-prompt-none-not-logged-in"),
        pytest.param({"request_uri": f"{CALLBACK}.jwt"}, "request_uri_not_supported", id="oidcc-request-uri-unsigned"),
        pytest.param(UNSIGNED, "request_not_supported", id="oidcc-unsigned-request-object"),
        pytest.param(ELSEWHERE, "request_not_supported", id="oidcc-ensure-request-object-with-redirect-uri"),
    ],
)
async def test_a_request_goes_back(browser: Browser, parameters: dict[str, str | None], error: str) -> None:
    reported = sent(await browser.open(**plain(**parameters)))
    assert (reported["error"], reported["state"], "code" in reported) == (error, "s-1", False)


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("parameters", [{}, {"request": request_object(redirect_uri=CALLBACK)}])
async def test_oidcc_ensure_registered_redirect_uri(browser: Browser, parameters: dict[str, str]) -> None:
    answer = await browser.open(**plain(redirect_uri=f"{CALLBACK}/elsewhere", **parameters))
    assert (answer.status_code, "location" in answer.headers) == (400, False)


async def test_oidcc_refresh_token(shop: Site, add_site: AddSite, browser: Browser, alice: Phone, clock: Clock) -> None:
    tokens = await logged_in(shop, browser, alice, scope="openid offline_access", prompt="consent")
    first = claims_in(tokens)
    clock.advance(seconds=2)
    refused(await (await add_site("other")).refresh(tokens), "invalid_grant")
    refreshed = (await shop.refresh(tokens)).json()
    assert refreshed["access_token"] != tokens["access_token"]
    assert await userinfo(browser, refreshed) == {"sub": alice.user_id}
    second = await id_claims(shop.client, refreshed["id_token"])
    kept = ("iss", "sub", "aud", "auth_time")
    assert [second[name] for name in kept] == [first[name] for name in kept]
    assert second["iat"] > first["iat"]


async def test_oidcc_ensure_request_with_valid_pkce_succeeds(shop: Site, browser: Browser, alice: Phone) -> None:
    reported = await (await browser.show(scope="openid")).approved_by(alice)
    refused(await redeemed(shop, reported["code"]), "invalid_grant")
    await tokens_for(shop, reported["code"], code_verifier=VERIFIER)
