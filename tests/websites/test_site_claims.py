"""Claims of a site of its own: in its access tokens, its id_tokens, and at `/v1/userinfo`."""

import pytest
from jose import jwt

from tests.websites.browsers import House
from tests.world import Body, MakeServices
from wxauth.server.core.services import Services

CLAIMS = {"tier": "$attributes.tier", "team": {"name": "shop", "roles": "$user.roles"}}
ADDED = {"tier": "gold", "team": {"name": "shop"}}


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    return await make_services(claims={"of": "logins"})


async def told(house: House, scope: str) -> list[Body]:
    """What the site's access token, its id_token and the userinfo endpoint say."""
    tokens = await house.tokens(scope=scope)
    userinfo = (await house.userinfo(tokens)).json()
    everything = (jwt.get_unverified_claims(tokens["access_token"]), await house.claims(tokens), userinfo)
    return [{name: claims[name] for name in ("of", "tier", "team") if name in claims} for claims in everything]


async def test_a_site_gets_its_own_claims_and_not_those_of_logins(house: House) -> None:
    assert await told(house, "openid") == [{}] * 3
    await house.change(claims=CLAIMS, scopes=["openid", "roles"])
    await house.rows.execute("""UPDATE users SET attributes = '{"tier": "gold"}', roles = '{editor}'""")
    assert await told(house, "openid") == [ADDED] * 3
    with_roles = {**ADDED, "team": {"name": "shop", "roles": ["editor"]}}
    assert await told(house, "openid roles") == [with_roles] * 3
