"""The plan "Back-Channel Logout OP" of the OpenID Foundation's conformance suite, each test named as its module."""

from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs

import pytest
from jose import jwt

from tests.receiver import Receiver, receiving
from tests.websites.browsers import Browser, id_claims, sent, tokens_of
from tests.world import AddSite, GetPhone
from wxauth.server.core.services import Services
from wxauth.server.events.webhook_deliveries import Deliveries

AFTER_LOGOUT = "https://shop.example.com/signed-out"


@pytest.fixture
async def backchannel_logout() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        receiver.usual = 200
        yield receiver


async def test_oidcc_backchannel_rp_initiated_logout(
    add_site: AddSite,
    get_phone: GetPhone,
    make_browser: Callable[[], Browser],
    services: Services,
    backchannel_logout: Receiver,
) -> None:
    shop = await add_site(logout_uris=[AFTER_LOGOUT], backchannel_logout_uri=backchannel_logout.url)
    browser = make_browser()
    tokens = await tokens_of(shop, browser, await get_phone())
    id_token = await id_claims(shop.client, tokens["id_token"])

    asked = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": AFTER_LOGOUT, "state": "s-2"}
    answer = await browser.client.get("/v1/end_session", params=asked)
    assert sent(answer, AFTER_LOGOUT) == {"state": "s-2"}

    await services[Deliveries].begin_due()
    await services[Deliveries].drain()
    ((headers, body),) = backchannel_logout.got
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    form = parse_qs(body.decode(), strict_parsing=True)
    assert form.keys() == {"logout_token"}
    (token,) = form["logout_token"]
    header, claims = jwt.get_unverified_header(token), await id_claims(shop.client, token)  # checks signature, iss, aud
    assert header["typ"] == "logout+jwt"
    assert header["alg"] == jwt.get_unverified_header(tokens["id_token"])["alg"]
    assert (claims["sub"], claims["sid"]) == (id_token["sub"], id_token["sid"])
    assert claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}
    assert claims["iat"] < claims["exp"] <= claims["iat"] + 120
    assert claims["jti"]
    assert "nonce" not in claims

    none = await browser.open(prompt="none")
    assert sent(none)["error"] == "login_required"
