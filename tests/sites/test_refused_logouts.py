"""A request to log out is refused for a reason that the log tells, or whatever is old about its id_token, accepted."""

import re
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import pytest
from jose import jwt

from tests.sites.browsers import BYE, FORM, House
from tests.world import Admin, body_of, set_roles
from wxauth.clients.clients import remove_client
from wxauth.core.trail import OPERATOR
from wxauth.keys.keyring import KeyRing, RsaKey

pytestmark = pytest.mark.slow

END = "/v1/end_session"
ELSEWHERE = "https://shop.example.com/elsewhere"
MOVED = "https://new.test"


def page_id(answer: httpx.Response) -> str:
    found = re.search(r"Request ID: ([0-9a-f]{32})", answer.text)
    assert found is not None, answer.text
    return found[1]


async def signed(house: House, claims: dict[str, Any], *, typ: str = "JWT", alg: str = "RS256") -> str:
    """Return a token that a key of the service has signed."""
    key = await house.stage.services[KeyRing].id_token_key(alg, house.stage.clock())
    return jwt.encode(claims, key.signer, alg, headers={"kid": key.kid, "typ": typ})


def changed(token: str) -> str:
    head, payload, signature = token.split(".")
    return f"{head}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_each_refused_logout_is_logged_under_the_id_on_its_page(house: House, method: str) -> None:
    await house.add_site("club")
    await house.change(phone_id_token=True)
    tokens = await house.tokens()
    good = tokens["id_token"]
    claims = jwt.get_unverified_claims(good)
    stranger = jwt.encode(claims, RsaKey.generate().signer, "RS256", headers={"kid": "A" * 43, "typ": "JWT"})
    refused: list[tuple[list[tuple[str, str]], str, str | None]] = [
        ([("id_token_hint", "nonsense")], "it is no token", None),
        ([("id_token_hint", "a.b.c")], "it is no token", None),
        ([("id_token_hint", "nonsense"), ("client_id", "shop")], "it is no token", "shop"),
        ([("id_token_hint", changed(good))], "its signature is wrong", "shop"),
        ([("id_token_hint", stranger)], "its key was withdrawn, or another service signed it", "shop"),
        ([("id_token_hint", tokens["access_token"])], "it is an access token", None),
        ([("id_token_hint", await signed(house, claims, typ="logout+jwt"))], "it is a logout token", "shop"),
        ([("id_token_hint", await signed(house, {**claims, "events": {}}))], "it is another kind of token", "shop"),
        ([("id_token_hint", await signed(house, {**claims, "aud": "gone"}))], "the id_token_hint was removed", None),
        ([("id_token_hint", body_of(await house.id_token())["id_token"])], "without a session", "shop"),
        ([("id_token_hint", good), ("client_id", "club")], "client_id isn't the client of the id_token_hint", "club"),
        ([("id_token_hint", good), ("id_token_hint", good)], "a parameter occurs twice: id_token_hint", None),
        ([("client_id", "shop"), ("state", "s" * 8193)], "state is too long", "shop"),
        ([("client_id", "shop"), ("id_token_hint", "a\x00b")], "id_token_hint is too long, or contains a", "shop"),
        ([("client_id", "club")] + [("x", "y")] * 100, "there are too many parameters", None),
    ]
    for parameters, reason, client_id in refused:
        asked = [*parameters[:1], ("post_logout_redirect_uri", f"{BYE}?code=1"), *parameters[1:]]
        if method == "GET":
            if len(urlencode(asked)) > 8000:
                continue
            answer = await house.browser.client.get(f"{END}?{urlencode(asked)}")
        else:
            answer = await house.browser.client.post(END, content=urlencode(asked), headers=FORM)
        assert answer.status_code == 400, reason
        line = house.stage.logged("logout_refused")[-1]
        assert reason in line["reason"]
        registered = {"shop": [BYE], "club": []}.get(client_id or "")
        received = "" if reason == "there are too many parameters" else f"{BYE}?…"
        assert [line[name] for name in ("client_id", "received", "registered", "request_id", "level")] == (
            [client_id, received, registered, page_id(answer), "warning"]
        ), reason
    assert await house.is_in(tokens)
    assert good not in str(house.stage.log_lines())


async def test_an_address_that_is_not_registered_is_logged_with_those_that_are(house: House) -> None:
    tokens = await house.tokens()
    answer = await house.log_out(id_token_hint=tokens["id_token"], post_logout_redirect_uri=f"{ELSEWHERE}?code=1")
    assert answer.status_code == 200
    [line] = house.stage.logged("logout_uri_not_registered")
    assert (line["request_id"], line["client_id"]) == (page_id(answer), "shop")
    assert (line["received"], line["registered"]) == (f"{ELSEWHERE}?…", [BYE])
    assert "wxauth clients set NAME --logout-uri" in line["what_to_change"]
    for client_id, name in (("shop", "shop"), ("unknown", "unknown"), ("<b>", None)):
        await house.log_out(client_id=client_id, post_logout_redirect_uri=ELSEWHERE)
        assert house.stage.logged("logout_uri_not_registered")[-1]["client_id"] == name
    assert not house.stage.logged("logout_refused")


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
async def test_an_id_token_logs_out_under_another_issuer_and_years_later(house: House, alg: str) -> None:
    await house.change(id_token_alg=alg)
    tokens = await house.tokens()
    moved = await house.replicas_browser(issuer=MOVED)
    hint = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": BYE, "state": "s-2"}
    # A sign-in request demands the issuer of today, because it is about who logs in.
    answer = await moved.open(id_token_hint=tokens["id_token"])
    assert "error=login_required" in answer.headers["location"]
    answer = await moved.client.get(END, params=hint)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{BYE}?state=s-2")
    assert not await house.is_in(tokens)
    for _ in range(3):
        await house.stage.services[KeyRing].rotate(at_once=True)
        await house.sweep(after=400 * 86400)
        await house.stage.services[KeyRing].refresh()
    assert await house.stage.number("signing_keys WHERE private_key = ''") >= 2
    assert (await moved.client.get(END, params=hint)).headers["location"] == f"{BYE}?state=s-2"


@pytest.mark.parametrize("ends", ["the key is withdrawn", "the client is removed", "another kind of token"])
async def test_what_is_no_good_id_token_of_this_installation_is_none_under_another_issuer_either(
    house: House, root: Admin, ends: str
) -> None:
    await house.change(phone_id_token=True)
    tokens = await house.tokens()
    hints = [tokens["id_token"]]
    if ends == "the key is withdrawn":
        kid = jwt.get_unverified_header(tokens["id_token"])["kid"]
        assert (await root.ask("POST", f"/keys/{kid}/withdraw")).status_code == 200
    elif ends == "the client is removed":
        await remove_client(house.stage.services.database, "shop", by=OPERATOR, now=house.stage.clock())
    else:
        claims = jwt.get_unverified_claims(tokens["id_token"])
        logout_tokens = [await signed(house, {**claims, "events": {}}, typ=typ) for typ in ("logout+jwt", "JWT")]
        phones = body_of(await house.id_token())["id_token"]
        hints = [tokens["access_token"], house.phone.tokens["access_token"], *logout_tokens, phones]
    for settings in ({}, {"issuer": MOVED}):
        browser = await house.replicas_browser(**settings)
        for hint in hints:
            assert (await browser.client.get(END, params={"id_token_hint": hint})).status_code == 400


async def test_a_posted_hint_may_have_16384_characters_and_another_8192(house: House) -> None:
    tokens = await house.tokens()
    claims = jwt.get_unverified_claims(tokens["id_token"])

    async def of_length(length: int) -> str:
        claims["picture"] = ""
        missing = length - len(await signed(house, claims))
        claims["picture"] = "x" * (missing * 3 // 4)
        token = await signed(house, claims)
        while len(token) < length:
            claims["picture"] += "x"
            token = await signed(house, claims)
        return token

    longest = await of_length(16383)
    assert 16383 <= len(longest) <= 16384
    longest_in_url = await of_length(8191)
    assert 8191 <= len(longest_in_url) <= 8192
    for method, path, hint, status in (
        ("POST", END, await of_length(16385), 400),
        ("GET", END, await of_length(8193), 400),
        ("GET", END, longest_in_url, 200),
        ("POST", END, longest, 200),
        ("POST", "/v1/authorize", longest, 400),
    ):
        fields = {"id_token_hint": hint, "client_id": "shop", "state": "s" * 100}
        client = house.browser.client
        answer = await (client.get(path, params=fields) if method == "GET" else client.post(path, data=fields))
        assert answer.status_code == status, (method, path, len(hint))
        assert await house.is_in(tokens) is (hint not in (longest_in_url, longest))


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
async def test_no_id_token_is_too_long_for_the_url_of_a_logout(house: House, alg: str) -> None:
    phone, rows = house.phone, house.stage.rows
    named = {"avatar_url": "https://example.com/".ljust(2048, "x"), "nickname": "😀" * 64}
    assert (await phone.ask("POST", json=named)).status_code == 200
    await set_roles(rows, *(f"r{n:0>31}" for n in range(32)), user_id=phone.user_id)
    attributes = "UPDATE users SET attributes = jsonb_build_object('a', repeat('x', 1500)) WHERE id = $1::text::uuid"
    await rows.execute(attributes, phone.user_id)
    await house.change(
        id_token_alg=alg,
        email_domain=f"{'d' * 60}.example",
        scopes=["openid", "profile", "phone", "email", "roles"],
        claims={"a": "$attributes.a", "b": "$attributes.a"},
    )
    scope = "openid profile phone email roles"
    for nonce, left_out in (("n", ["picture"]), ("😀" * 512, ["a", "b", "picture"])):
        tokens = await house.tokens(scope=scope, nonce=nonce)
        claims = jwt.get_unverified_claims(tokens["id_token"])
        assert claims["nonce"] == nonce
        lines = house.stage.logged("claims_left_out")
        assert (lines[-1]["claims"], lines[-1]["client_id"]) == (left_out, "shop")
        userinfo = body_of(await house.userinfo(tokens))
        assert userinfo.keys() - claims.keys() == set(left_out), "the site can still ask for these"
        answer = await house.log_out(
            id_token_hint=tokens["id_token"], post_logout_redirect_uri=BYE, state=str(uuid4()), client_id="shop"
        )
        assert answer.headers["location"].startswith(BYE), len(tokens["id_token"])
        assert not await house.is_in(tokens)
