"""The plan "Back-Channel Logout OP" of the OpenID Foundation's conformance suite, each test named as its module."""

from urllib.parse import parse_qs

from jose import jwt

from tests.receiver import receiving
from tests.websites.browsers import BYE, House, sent
from wxauth.server.events.webhook_deliveries import Deliveries


async def test_oidcc_backchannel_rp_initiated_logout(house: House) -> None:
    async with receiving() as receiver:
        receiver.usual = 200
        await house.change(backchannel_logout_uri=receiver.url, sso=True, pkce="optional")
        tokens = await house.tokens()
        answer = await house.log_out(id_token_hint=tokens["id_token"], post_logout_redirect_uri=BYE, state="s-2")
        assert sent(answer, BYE) == {"state": "s-2"}
        await house.stage.services[Deliveries].begin_due()
        await house.stage.services[Deliveries].drain()
    ((headers, body),) = receiver.got
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    form = parse_qs(body.decode(), strict_parsing=True)
    assert form.keys() == {"logout_token"}
    (token,) = form["logout_token"]
    header, claims = jwt.get_unverified_header(token), await house.claims({"id_token": token})
    assert (header["typ"], header["alg"]) == ("logout+jwt", jwt.get_unverified_header(tokens["id_token"])["alg"])
    id_token = await house.claims(tokens)
    assert (claims["sub"], claims["sid"]) == (id_token["sub"], id_token["sid"])
    assert claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}
    assert claims["iat"] < claims["exp"] <= claims["iat"] + 120
    assert (bool(claims["jti"]), "nonce" in claims) == (True, False)
    assert sent(await house.browser.open(prompt="none"))["error"] == "login_required"
