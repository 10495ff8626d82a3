"""PyJWT verifies tokens with the keys that a running service publishes."""

from contextlib import suppress

import jwt
import pytest

from tests.foreign.conftest import Issuer
from tests.foreign.corpus import ACCEPTED, REFUSED, SCOPED
from tests.foreign.verify_with_pyjwt import AccessTokens, InsufficientScope
from tests.guard.hostile import HOSTILE, Forgery
from tests.processes import free_port
from tests.sweeps import swept

pytestmark = pytest.mark.process

IAT_AHEAD = {"iat an hour ahead": lambda forger: forger.with_claims(iat=forger.claims["iat"] + 3600)}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def access_tokens(issuer: Issuer) -> AccessTokens:
    return AccessTokens(issuer.url)


@swept("forgery", ACCEPTED.values(), ids=ACCEPTED)
def test_pyjwt_accepts_every_good_token(access_tokens: AccessTokens, issuer: Issuer, forgery: Forgery) -> None:
    assert access_tokens.claims(issuer.forge(forgery))["iss"] == issuer.url


@swept("forgery", (REFUSED | IAT_AHEAD).values(), ids=REFUSED | IAT_AHEAD)
def test_pyjwt_refuses_every_hostile_token(access_tokens: AccessTokens, issuer: Issuer, forgery: Forgery) -> None:
    with pytest.raises(jwt.PyJWTError) as refusal:
        access_tokens.claims(issuer.forge(forgery))
    assert not isinstance(refusal.value, jwt.PyJWKClientConnectionError)


@swept("forgery", SCOPED.values(), ids=SCOPED)
def test_pyjwt_refuses_a_token_of_a_website_unless_it_is_told_otherwise(
    access_tokens: AccessTokens, issuer: Issuer, forgery: Forgery
) -> None:
    token = issuer.forge(forgery)
    with pytest.raises(InsufficientScope):
        access_tokens.claims(token)
    assert "scope" in AccessTokens(issuer.url, websites=True).claims(token)


def test_pyjwt_raises_nothing_but_refusals(access_tokens: AccessTokens, issuer: Issuer) -> None:
    for forgery in HOSTILE.values():
        with suppress(jwt.PyJWTError):
            access_tokens.claims(issuer.forge(forgery))


def test_pyjwt_refuses_a_token_for_another_audience(issuer: Issuer) -> None:
    with pytest.raises(jwt.InvalidAudienceError):
        AccessTokens(issuer.url, audience="orders").claims(issuer.token)


def test_pyjwt_reports_that_the_keys_are_unavailable(issuer: Issuer) -> None:
    with pytest.raises(jwt.PyJWKClientConnectionError):
        AccessTokens(f"http://127.0.0.1:{free_port()}").claims(issuer.token)
