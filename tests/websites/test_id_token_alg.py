"""A site may ask for id_tokens signed by ES256, which no verifier accepts as access tokens."""

from typing import Any

import httpx
import pytest
from jose import jwt

from tests.problems import problem_of
from tests.websites.browsers import Browser, id_claims, tokens_of
from tests.world import AddSite, MakeClient, Phone, Site, bearer
from wxauth.server.clients.clients import change_client
from wxauth.server.core.services import Services
from wxauth.server.keys.keyring import KeyRing

BYE = "https://shop.example.com/bye"


@pytest.fixture
def browser(make_client: MakeClient, services: Services) -> Browser:
    return Browser(make_client(services))


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    return await add_site(logout_uris=[BYE], id_token_alg="ES256")


def header_of(tokens: dict[str, Any], name: str) -> dict[str, Any]:
    return jwt.get_unverified_header(tokens[name])


async def test_an_es256_sites_id_tokens_are_signed_by_the_key_of_access_tokens(
    shop: Site, browser: Browser, phone: Phone
) -> None:
    tokens = await tokens_of(shop, browser, phone)
    of_access_token = header_of(tokens, "access_token")
    assert header_of(tokens, "id_token") == {"alg": "ES256", "kid": of_access_token["kid"], "typ": "JWT"}
    claims = await id_claims(browser.client, tokens["id_token"], algorithm="ES256")
    assert (claims["sub"], claims["nonce"]) == (phone.user_id, "n-1")
    refreshed = (await shop.refresh(tokens)).json()
    assert header_of(refreshed, "id_token")["alg"] == "ES256"


async def test_the_other_sites_have_rs256(
    add_site: AddSite, shop: Site, browser: Browser, phone: Phone, services: Services
) -> None:
    other = await add_site("other")
    tokens = await tokens_of(other, browser, phone, client_id="other")
    assert header_of(tokens, "id_token")["alg"] == "RS256"
    now = services.clock()
    await change_client(services.database, "other", {"id_token_alg": "ES256"}, now=now)
    tokens = (await other.refresh(tokens)).json()
    assert header_of(tokens, "id_token")["alg"] == "ES256"
    await change_client(services.database, "other", {"id_token_alg": None}, now=now)
    assert header_of((await other.refresh(tokens)).json(), "id_token")["alg"] == "RS256"


async def test_an_es256_sites_id_token_is_no_access_token(shop: Site, browser: Browser, phone: Phone) -> None:
    tokens = await tokens_of(shop, browser, phone)
    as_bearer = bearer(tokens["id_token"])
    for path in ("/v1/me", "/v1/userinfo", "/v1/verify", "/v1/admin/users"):
        problem_of(await browser.client.get(path, headers=as_bearer), "invalid_token", 401)
    assert (await shop.post("/v1/revoke", token=tokens["id_token"])).status_code == 200
    assert (await browser.client.get("/v1/userinfo", headers=bearer(tokens))).status_code == 200


async def test_an_es256_sites_id_token_logs_out_and_an_access_token_does_not(
    shop: Site, browser: Browser, phone: Phone, services: Services
) -> None:
    async def log_out(hint: str) -> httpx.Response:
        asked = {"id_token_hint": hint, "post_logout_redirect_uri": BYE}
        return await browser.client.get("/v1/end_session", params=asked)

    tokens = await tokens_of(shop, browser, phone)
    forged = tokens["id_token"][:-6] + "AAAAAA"
    for wrong in (tokens["access_token"], phone.tokens["access_token"], forged):
        assert (await log_out(wrong)).status_code == 400
    await services[KeyRing].rotate()
    answer = await log_out(tokens["id_token"])
    assert (answer.status_code, answer.headers["location"]) == (303, BYE)
    problem_of(await browser.client.get("/v1/userinfo", headers=bearer(tokens)), "invalid_token", 401)
