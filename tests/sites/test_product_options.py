"""Options for products with rules of their own: how long id_tokens live, and what they say about an e-mail address."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from jose import jwt

from tests.sites.browsers import House, id_claims, keys_at
from tests.world import body_of
from wxauth.clients.clients import remove_client
from wxauth.core.trail import OPERATOR
from wxauth.keys.keyring import KeyRing
from wxauth.keys.models import RETIRES_AFTER

pytestmark = pytest.mark.slow

DAY = 86400
EMAIL: dict[str, Any] = {"email": "$attributes.mail"}
ADDRESS = "a@shop.example"


@pytest.mark.parametrize(
    ("options", "attribute", "said"),
    [
        ({"email_domain": "wx.invalid"}, None, {"email": "{me}@wx.invalid", "email_verified": False}),
        ({"email_domain": "wx.invalid", "omit_email_verified": True}, None, {"email": "{me}@wx.invalid"}),
        ({"omit_email_verified": True}, None, {}),
        ({"claims": EMAIL}, f'"{ADDRESS}"', {"email": ADDRESS}),
        ({"claims": EMAIL, "omit_email_verified": True}, f'"{ADDRESS}"', {"email": ADDRESS}),
        ({"claims": {"email": "$user.external_id"}}, None, {"email": "x@shop.example"}),
        *(
            (
                {"claims": {**EMAIL, "email_verified": is_verified}, "i_verify_this_address": True},
                attribute,
                {"email": ADDRESS, "email_verified": is_verified} if attribute == f'"{ADDRESS}"' else {},
            )
            for is_verified in (True, False)
            # Attributes are any JSON, and a product must never take `true` for the address of an absent attribute.
            for attribute in (f'"{ADDRESS}"', None, "7", "true", '""', f'["{ADDRESS}"]', '{"a": 1}')
        ),
    ],
)
async def test_a_site_is_told_of_an_address_what_its_options_say(
    house: House, options: dict[str, Any], attribute: str | None, said: dict[str, Any]
) -> None:
    await house.change(scopes=["openid", "email"], **options)
    change = "UPDATE users SET external_id = 'x@shop.example', attributes = $1::text::jsonb WHERE id = $2::text::uuid"
    attributes = "{}" if attribute is None else f'{{"mail": {attribute}}}'
    await house.stage.rows.execute(change, attributes, house.phone.user_id)
    tokens = await house.tokens(scope="openid email")
    expected = {
        name: value.format(me=house.phone.user_id) if isinstance(value, str) else value for name, value in said.items()
    }
    for claims in (await house.claims(tokens), body_of(await house.userinfo(tokens))):
        assert {name: claims[name] for name in claims.keys() & {"email", "email_verified"}} == expected


async def lifetime(house: House, tokens: dict[str, Any]) -> int:
    claims = await house.claims(tokens)
    return int(claims["exp"]) - int(claims["iat"])


async def test_an_id_token_lives_as_its_site_says_and_never_longer_than_its_session(house: House) -> None:
    await house.change(id_token_ttl=8 * 3600)
    tokens = await house.tokens()
    assert await lifetime(house, tokens) == 8 * 3600
    assert tokens["expires_in"] == 900, "the access token's lifetime stays"
    house.stage.clock.advance(seconds=60)
    for ttl in (8 * 3600, 60):
        await house.change(id_token_ttl=ttl)
        tokens = body_of(await house.shop.refresh(tokens))
        assert await lifetime(house, tokens) == ttl
    await house.change(id_token_ttl=30 * DAY)
    ends_at = await house.stage.rows.fetchval("SELECT expires_at FROM sessions WHERE client_id = 'shop'")
    claims = await house.claims(tokens := body_of(await house.shop.refresh(tokens)))
    # The refresh may have moved the end of the session, which is always far below 30 days.
    later = await house.stage.rows.fetchval("SELECT expires_at FROM sessions WHERE client_id = 'shop'")
    assert int(ends_at.timestamp()) <= claims["exp"] <= int(later.timestamp())
    await house.change(id_token_ttl=None)
    assert await lifetime(house, body_of(await house.shop.refresh(tokens))) == 900


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
@pytest.mark.parametrize(
    "then", ["nothing", "it waits", "it has just begun", "shorter again", "removed", "the key is withdrawn"]
)
async def test_a_key_is_published_until_the_last_id_token_that_it_may_have_signed_has_expired(
    house: House, alg: str, then: str
) -> None:
    """`then` says when the site's lifetime is set, or what happens to it after an id_token has been issued."""
    clock = house.stage.clock
    replica = await house.stage.replica(web_session_ttl=30 * DAY)
    house.shop = replace(house.shop, client=replica.client)
    ring = replica.services[KeyRing]
    await house.change(id_token_alg=alg)
    long = 20 * DAY

    async def rotate() -> None:
        await ring.rotate(at_once=True)

    if then not in ("it waits", "it has just begun"):
        await house.change(id_token_ttl=long)
    else:
        await rotate()
        clock.advance(seconds=390 if then == "it has just begun" else 300)
        await house.change(id_token_ttl=long)
    await ring.refresh()
    token = (await house.tokens())["id_token"]
    claims = await id_claims(replica.client, token)
    kid = jwt.get_unverified_header(token)["kid"]
    assert claims["exp"] - claims["iat"] == long
    if then == "shorter again":
        await house.change(id_token_ttl=60)
    elif then == "removed":
        await remove_client(house.stage.services.database, "shop", by=OPERATOR, now=clock())
    if then != "it waits":
        await rotate()

    async def is_published() -> bool:
        await ring.refresh()
        await house.sweep()
        return kid in [key["kid"] for key in await keys_at(replica.client)]

    if then == "the key is withdrawn":
        await ring.withdraw(kid, by=OPERATOR)
        assert not await is_published()
        return
    clock.now += RETIRES_AFTER + timedelta(seconds=360)
    assert await is_published()
    clock.now += timedelta(seconds=claims["exp"] - clock.now.timestamp())
    assert await is_published()
    clock.advance(days=1, minutes=30)
    assert not await is_published()
    successors = "SELECT max(id_token_ttl) FROM signing_keys WHERE alg = $1 AND retires_at IS NULL"
    longest = long if then in ("nothing", "it waits", "it has just begun") else 60 if then == "shorter again" else 0
    assert await house.stage.rows.fetchval(successors, alg) == longest, "the next key is kept for what is set now"


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
async def test_a_former_key_is_not_kept_for_a_lifetime_that_is_set_later(house: House, alg: str) -> None:
    await house.change(id_token_alg=alg)
    ring, clock = house.stage.services[KeyRing], house.stage.clock
    await ring.rotate(at_once=True)
    clock.advance(minutes=13)
    ends = "SELECT retires_at FROM signing_keys WHERE alg = $1 AND retires_at IS NOT NULL"
    before = await house.stage.rows.fetchval(ends, alg)
    await house.change(id_token_ttl=20 * DAY)
    assert await house.stage.rows.fetchval(ends, alg) == before
