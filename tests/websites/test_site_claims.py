"""Claims of a site of its own: in its access tokens, its id_tokens, and at `/v1/userinfo`."""

from typing import Any

import pytest
from jose import jwt

from tests.problems import problem_of
from tests.websites.browsers import Browser, id_claims, tokens_of
from tests.world import AddSite, Admin, Client, LogIn, MakeClient, MakeServices, Phone, Rows, Site, bearer, make_admin
from wxauth.server.core.services import Services

CLAIMS = {"tier": "$attributes.tier", "team": {"name": "shop", "roles": "$user.roles"}}
ADDED = {"tier": "gold", "team": {"name": "shop"}}


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    return await make_services(claims={"of": "logins"})


@pytest.fixture
def browser(make_client: MakeClient, services: Services) -> Browser:
    return Browser(make_client(services))


def added(claims: dict[str, Any]) -> dict[str, Any]:
    return {name: claims[name] for name in ("of", "tier", "team") if name in claims}


async def told(site: Site, browser: Browser, phone: Phone, **parameters: str) -> list[dict[str, Any]]:
    """What the site's access token, its id_token and the userinfo endpoint say."""
    tokens = await tokens_of(site, browser, phone, **parameters)
    userinfo = await browser.client.get("/v1/userinfo", headers=bearer(tokens))
    id_token = await id_claims(browser.client, tokens["id_token"])
    return [added(each) for each in (jwt.get_unverified_claims(tokens["access_token"]), id_token, userinfo.json())]


async def test_a_site_gets_its_own_claims_and_not_those_of_logins(
    add_site: AddSite, browser: Browser, phone: Phone, rows: Rows
) -> None:
    site = await add_site(claims=CLAIMS, scopes=["openid", "roles"])
    await rows.execute("""UPDATE users SET attributes = '{"tier": "gold"}', roles = '{editor}'""")
    assert await told(site, browser, phone, scope="openid") == [ADDED] * 3
    with_roles = {**ADDED, "team": {"name": "shop", "roles": ["editor"]}}
    assert await told(site, browser, phone, scope="openid roles") == [with_roles] * 3


async def test_a_site_without_claims_gets_none(add_site: AddSite, browser: Browser, phone: Phone) -> None:
    assert await told(await add_site(), browser, phone) == [{}] * 3


async def test_an_administrator_changes_a_sites_claims(client: Client, login: LogIn, rows: Rows) -> None:
    root: Admin = await make_admin(client, rows, await login("root"))
    site = {"name": "shop", "redirect_uris": ["https://shop.example.com/callback"], "claims": {"team": "a"}}
    assert (await root.ask("POST", "/clients", json=site)).json()["claims"] == {"team": "a"}
    changed = await root.ask("PATCH", "/clients/shop", json={"claims": None})
    assert changed.json()["claims"] is None
    for wrong in ({"sub": "x"}, {"x": "$nickname"}, {"x": "y" * 1024}):
        refused = await root.ask("PATCH", "/clients/shop", json={"claims": wrong})
        assert problem_of(refused, "invalid_request", 422)["errors"][0]["field"] == "claims"
    service = await root.ask("POST", "/clients", json={"name": "billing", "claims": {"team": "a"}})
    assert problem_of(service, "invalid_request", 422)["errors"][0]["field"] == "claims"
