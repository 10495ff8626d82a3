"""Tests of the plan "Basic OP" of the OpenID Foundation's conformance suite. Each case has the name of its module."""

import json
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.sites.browsers import ASKED, WITHOUT_PKCE, House, Tab, refused, sent
from tests.sites.certification.requests import request_object
from tests.sweeps import swept
from tests.world import CALLBACK, NUMBER, Body

EMAIL = {"email": "{id}@wx.invalid", "email_verified": False}
OF_PHONE = {"phone_number": NUMBER, "phone_number_verified": True}
NAMED = {"name": "Alice", "updated_at": ...}
CLAIMS = json.dumps({"userinfo": {"name": {"essential": True}}}, indent=2)


SCOPES = ["openid", "profile", "email", "phone", "offline_access"]
pytestmark = pytest.mark.shop(sso=True, pkce="optional", scopes=SCOPES, email_domain="wx.invalid")


@pytest.fixture
async def house(house: House) -> House:
    fields = "UPDATE users SET nickname = 'Alice', phone = $1, phone_verified_at = now()"
    await house.stage.rows.execute(fields, NUMBER)
    return house


def plain(**parameters: Any) -> dict[str, Any]:
    """Return the parameters of the suite's usual request, which has no PKCE and only the scope `openid`."""
    return {"scope": "openid", **WITHOUT_PKCE, **parameters}


async def redeemed(house: House, code: str, **form: str) -> httpx.Response:
    form = {"code": code, "redirect_uri": CALLBACK, **form}
    return await house.shop.post("/v1/token", grant_type="authorization_code", **form)


async def tokens_for(house: House, code: str, **form: str) -> Body:
    answer = await redeemed(house, code, **form)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), answer.text
    return answer.json()


async def logged_in(house: House, **parameters: Any) -> Body:
    """Return the tokens of a login with a scan."""
    return await tokens_for(house, await house.code(**plain(**parameters)))


async def told(house: House, tokens: Body) -> Body:
    """Return the response of the userinfo endpoint."""
    answer = await house.userinfo(tokens)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
    return answer.json()


SUCCEED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "oidcc-scope-profile": ({"scope": "openid profile"}, NAMED),
    "oidcc-scope-email": ({"scope": "openid email"}, EMAIL),
    "oidcc-scope-address": ({"scope": "openid address"}, {}),
    "oidcc-scope-phone": ({"scope": "openid phone"}, OF_PHONE),
    "oidcc-scope-all": ({"scope": "openid profile email address phone"}, {**NAMED, **EMAIL, **OF_PHONE}),
    "oidcc-ensure-other-scope-order-succeeds": ({"scope": "email openid"}, EMAIL),
    "oidcc-ensure-request-without-nonce-succeeds-for-code-flow": ({"nonce": None}, {}),
    "oidcc-display-page": ({"display": "page"}, {}),
    "oidcc-display-popup": ({"display": "popup"}, {}),
    "oidcc-ensure-request-with-unknown-parameter-succeeds": ({"extra": "foobar"}, {}),
    "oidcc-login-hint": ({"login_hint": "bob@example.com"}, {}),
    "oidcc-ui-locales": ({"ui_locales": "se"}, {}),
    "oidcc-claims-locales": ({"claims_locales": "se"}, {}),
    "oidcc-ensure-request-with-acr-values-succeeds": ({"acr_values": "1 2"}, {}),
    # wxauth doesn't support this parameter, so its length and form don't matter.
    "oidcc-claims-essential": ({"claims": CLAIMS}, {}),
    "oidcc-claims-essential, a long one": ({"claims": CLAIMS + " " * 5000}, {}),
}


@pytest.mark.slow
@swept(("parameters", "claims"), SUCCEED.values(), ids=SUCCEED)
async def test_a_request_succeeds(house: House, parameters: dict[str, Any], claims: dict[str, Any]) -> None:
    house.browser, me = house.another_browser(), house.phone.user_id
    tokens = await logged_in(house, **parameters)
    of_token = await house.claims(tokens)
    assert (of_token["sub"], of_token.get("nonce")) == (me, parameters.get("nonce", "n-1"))
    assert set(tokens["scope"].split()) == set(parameters.get("scope", "openid").split()) - {"address"}
    body = await told(house, tokens)
    assert type(body.get("updated_at", 0)) is int
    expected = {name: value.format(id=me) if isinstance(value, str) else value for name, value in claims.items()}
    assert {name: ... if name == "updated_at" else value for name, value in body.items()} == {"sub": me, **expected}


@swept("more", ["prompt-none-logged-in", "max-age-10000", "id-token-hint"])
async def test_oidcc_the_browsers_login_answers(house: House, more: str) -> None:
    house.browser = house.another_browser()
    tokens = await logged_in(house)
    house.stage.clock.advance(seconds=2)
    known = {"max-age-10000": {"max_age": "10000"}, "id-token-hint": {"id_token_hint": tokens["id_token"]}}
    asked: dict[str, Any] = known.get(more, {})
    page = await house.browser.open(**plain(**asked))
    assert ("/v1/scans/" in page.text, "/continue" in page.text) == (False, True)
    code = sent(await house.browser.open(**plain(prompt="none", **asked)))["code"]
    again, first = await house.claims(await tokens_for(house, code)), await house.claims(tokens)
    assert (again["sub"], again["auth_time"]) == (first["sub"], first["auth_time"])


@pytest.mark.oldest_postgres
@pytest.mark.parametrize("seconds", [0, 30], ids=["codereuse", "codereuse-30seconds"])
async def test_oidcc_codereuse(house: House, seconds: int) -> None:
    code = await house.code(**plain())
    tokens = await tokens_for(house, code)
    house.stage.clock.advance(seconds=seconds)
    refused(await redeemed(house, code), "invalid_grant")
    assert not await house.is_in(tokens)
    refused(await house.shop.refresh(tokens), "invalid_grant")
    assert '"reused"' in await house.stage.rows.fetchval("SELECT data FROM events WHERE type = 'session.ended'")


async def test_oidcc_ensure_post_request_succeeds(house: House) -> None:
    page = await house.browser.open("POST", **plain())
    reported = await Tab(house.browser, page.text).approved_by(house.phone)
    assert reported["state"] == "s-1"
    await tokens_for(house, reported["code"])
    cross_site = await house.browser.open("POST", headers={"Sec-Fetch-Site": "cross-site"}, **plain())
    asked = {name: value for name, value in {**ASKED, **plain()}.items() if value is not None}
    assert (cross_site.status_code, cross_site.headers["location"]) == (303, f"/v1/authorize?{urlencode(asked)}")
    too_long = await house.browser.open("POST", headers={"Sec-Fetch-Site": "cross-site"}, state="s" * 9000)
    assert (too_long.status_code, "location" in too_long.headers) == (400, False)


GO_BACK: dict[str, tuple[dict[str, Any], str]] = {
    "oidcc-response-type-missing": ({"response_type": None}, "invalid_request"),
    "oidcc-prompt-none-not-logged-in": ({"prompt": "none"}, "login_required"),
    "oidcc-request-uri-unsigned": ({"request_uri": f"{CALLBACK}.jwt"}, "request_uri_not_supported"),
    "oidcc-unsigned-request-object": ({"request": request_object(state="s-2")}, "request_not_supported"),
    "oidcc-ensure-request-object-with-redirect-uri": (
        {"request": request_object(redirect_uri="https://evil.example/callback")},
        "request_not_supported",
    ),
}


@swept(("parameters", "error"), GO_BACK.values(), ids=GO_BACK)
async def test_a_request_goes_back(house: House, parameters: dict[str, Any], error: str) -> None:
    reported = sent(await house.browser.open(**plain(**parameters)))
    assert (reported["error"], reported["state"], "code" in reported) == (error, "s-1", False)


async def test_oidcc_refresh_token(house: House) -> None:
    tokens = await logged_in(house, scope="openid offline_access", prompt="consent")
    first = await house.claims(tokens)
    house.stage.clock.advance(seconds=2)
    refused(await (await house.add_site("other")).refresh(tokens), "invalid_grant")
    refreshed = (await house.shop.refresh(tokens)).json()
    assert refreshed["access_token"] != tokens["access_token"]
    assert await told(house, refreshed) == {"sub": house.phone.user_id}
    second, kept = await house.claims(refreshed), ("iss", "sub", "aud", "auth_time", "sid", "amr")
    assert {name: second[name] for name in kept} == {name: first[name] for name in kept}
    assert (second["iat"], "nonce" in second) == (first["iat"] + 2, False)
