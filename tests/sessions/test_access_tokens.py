"""These tests check access tokens, the keys and metadata for siblings, and the tokens that `GET /v1/me` accepts."""

import json
from typing import Any

import pytest
from jose import jwt

from tests.guard.hostile import EXPIRED, GOOD, HOSTILE, LONGER_THAN_A_HEAD, WEBSITES, Forger, decode
from tests.problems import problem_of
from tests.sweeps import Sweep, swept
from tests.world import Client, LogIn, Stage
from wxauth.keys.keyring import KeyRing
from wxauth_guard.testing import TestIssuer

JWKS = "/.well-known/jwks.json"


@pytest.fixture
async def token(login: LogIn) -> str:
    return (await login("alice"))["access_token"]


def json_of(part: str) -> dict[str, Any]:
    return json.loads(decode(part))


@pytest.mark.requirement("rfc9068-2.1", "rfc9068-2.2")
async def test_a_token_has_exactly_the_header_and_the_claims_of_the_contract(stage: Stage) -> None:
    answer = await stage.login("alice")
    header, claims = map(json_of, answer["access_token"].split(".")[:2])
    [key] = (await stage.client.get(JWKS)).json()["keys"]
    assert header == {"alg": "ES256", "kid": key["kid"], "typ": "at+jwt"}
    now = int(stage.clock().timestamp())
    assert claims == {
        "iss": "https://auth.test",
        "sub": answer["user"]["id"],
        "aud": "wxauth",
        "exp": now + answer["expires_in"],
        "iat": now,
        "jti": claims["jti"],
        "client_id": answer["user"]["app_id"],
        "sid": answer["session_id"],
        "openid": answer["user"]["openid"],
    }
    assert type(claims["iat"]) is type(claims["exp"]) is int


async def test_a_token_of_the_tests_issuer_looks_like_the_services(login: LogIn) -> None:
    issuer = TestIssuer()
    real = (await login())["access_token"]
    for token, roles in ((issuer.token(), {}), (issuer.token(roles=["admin"]), {"roles": ["admin"]})):
        assert jwt.get_unverified_header(token).keys() == jwt.get_unverified_header(real).keys()
        claims = jwt.get_unverified_claims(token)
        expected = jwt.get_unverified_claims(real) | roles
        assert {name: type(value) for name, value in claims.items()} == {
            name: type(value) for name, value in expected.items()
        }
        assert claims["exp"] - claims["iat"] == expected["exp"] - expected["iat"]


@pytest.mark.requirement("asvs-7.2.1")
async def test_every_token_has_an_id_of_its_own(login: LogIn) -> None:
    tokens = [(await login("alice"))["access_token"] for _ in range(3)]
    assert len({json_of(token.split(".")[1])["jti"] for token in tokens}) == 3


async def test_the_key_set_holds_only_public_members(client: Client) -> None:
    answer = await client.get(JWKS)
    assert answer.headers["content-type"] == "application/json"
    for key in answer.json()["keys"]:
        assert key.keys() == {"kty", "crv", "alg", "use", "kid", "x", "y"}
        assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("EC", "P-256", "ES256", "sig")


@pytest.mark.parametrize("known", ["{etag}", "W/{etag}", '"other", {etag}', "*"])
async def test_a_known_key_set_is_not_sent_again(client: Client, known: str) -> None:
    etag = (await client.get(JWKS)).headers["etag"]
    answer = await client.get(JWKS, headers={"If-None-Match": known.format(etag=etag)})
    assert (answer.status_code, answer.content) == (304, b"")
    assert (answer.headers["etag"], answer.headers["cache-control"]) == (etag, "public, max-age=300")
    assert (await client.get(JWKS, headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.slow
@pytest.mark.requirement("asvs-9.2.3", "rfc9068-4")
async def test_me_takes_the_good_tokens_and_refuses_every_other(stage: Stage, token: str) -> None:
    of_phones = {name: forgery for name, forgery in GOOD.items() if name != WEBSITES}
    in_one_head = {name: forgery for name, forgery in HOSTILE.items() if name != LONGER_THAN_A_HEAD}
    key, challenge = stage.services[KeyRing].signing_key(stage.clock()), 'Bearer error="invalid_token"'
    with Sweep() as sweep:
        for forgeries, *expected in (
            (in_one_head, 401, "invalid_token", challenge),
            (EXPIRED, 401, "token_expired", challenge),
            (of_phones, 200, None, None),
        ):
            for name, forge in forgeries.items():
                with sweep.case(name):
                    answer = await stage.me(forge(Forger(token, key)))
                    shown = [answer.status_code, answer.json().get("code"), answer.headers.get("www-authenticate")]
                    assert shown == expected
    problem_of(await stage.me(HOSTILE[LONGER_THAN_A_HEAD](Forger(token, key))), "invalid_request", 431)


@swept(
    ("sent", "detail"),
    [
        ("undefined", "the client sent undefined in place of a token"),
        ("null", "the client sent null in place of a token"),
        ("[object Object]", "the client sent [object Object] in place of a token"),
        ("'NaN'", "the client sent NaN in place of a token"),
        ('""', "the client sent empty quotation marks in place of a token"),
        ('"{token}"', "the client sent the token in quotation marks"),
        ("'{token}'", "the client sent the token in quotation marks"),
        ("undefined.x", "the token is not a JWS in compact form with an ES256 signature"),
    ],
)
async def test_what_is_sent_in_place_of_a_token_is_named(stage: Stage, token: str, sent: str, detail: str) -> None:
    assert problem_of(await stage.me(sent.format(token=token)), "invalid_token", 401)["detail"] == detail


@swept(
    "authorization",
    [
        pytest.param(None, id="none"),
        "",
        "Bearer",
        "Bearer ",
        "Bearer    ",
        "Basic YWxpY2U6c2VjcmV0",
        "Bearer\t{token}",
        "{token}",
        "Token {token}",
        "Bearer={token}",
    ],
)
@pytest.mark.requirement("rfc6750-3")
async def test_without_a_bearer_token_the_challenge_is_bare(
    stage: Stage, token: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.format(token=token)}
    answer = await stage.client.get("/v1/me", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "missing_token")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("authorization", ["bearer {token}", "BEARER {token}", "Bearer   {token}", "Bearer {token}  "])
async def test_the_scheme_takes_any_case_and_spaces(client: Client, token: str, authorization: str) -> None:
    answer = await client.get("/v1/me", headers={"Authorization": authorization.format(token=token)})
    assert answer.status_code == 200, answer.text
