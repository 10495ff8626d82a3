"""A guard tells its service's log why it refuses tokens, and never tells the token."""

import logging
from typing import Any

import pytest

from tests.guard.fakes import NOW, Timer
from tests.tokens.hostile import HOSTILE, Forger
from wxauth.errors import InvalidToken
from wxauth.guard import BearerGuard
from wxauth.testing import TestIssuer


@pytest.fixture
def timer() -> Timer:
    timer = Timer()
    timer.seconds = NOW
    return timer


@pytest.fixture
def issuer(timer: Timer) -> TestIssuer:
    return TestIssuer(audience="shop", clock=timer)


@pytest.fixture
def guard(issuer: TestIssuer) -> BearerGuard:
    return issuer.guard()


async def refuse(guard: BearerGuard, token: str, *, by_thread: bool = False) -> None:
    with pytest.raises(InvalidToken):
        guard.verify_sync(token) if by_thread else await guard.verify(token)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {(line.name, line.levelno) for line in caplog.records} <= {("wxauth.guard", logging.WARNING)}
    return [line.getMessage().removeprefix("A token was refused: ") for line in caplog.records]


@pytest.mark.parametrize("by_thread", [False, True])
@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "wxauth"}, "aud is 'wxauth', this guard expects 'shop'"),
        ({"aud": ["a", "b"]}, "aud is ['a', 'b'], this guard expects 'shop'"),
        ({"aud": None}, "aud is missing, this guard expects 'shop'"),
        ({"iss": "https://old.test"}, "iss is 'https://old.test', this guard expects 'https://auth.test'"),
        ({"exp": NOW - 3300}, "expired 3,300 s ago by this machine's clock"),
        ({"iat": NOW + 3300}, "iat is 3,300 s in the future by this machine's clock"),
        ({"nbf": NOW + 45}, "nbf is 45 s in the future by this machine's clock"),
    ],
)
async def test_a_refusal_is_told_with_both_values(
    issuer: TestIssuer,
    guard: BearerGuard,
    caplog: pytest.LogCaptureFixture,
    claims: dict[str, Any],
    reason: str,
    by_thread: bool,
) -> None:
    await refuse(guard, issuer.token(claims=claims), by_thread=by_thread)
    assert told(caplog) == [reason]


async def test_the_same_cause_is_told_once_in_a_minute(
    issuer: TestIssuer, guard: BearerGuard, timer: Timer, caplog: pytest.LogCaptureFixture
) -> None:
    for seconds, lines in ((0, 1), (59, 1), (60, 2), (119, 2), (-3600, 3)):
        timer.seconds = NOW + seconds
        for _ in range(3):
            await refuse(guard, issuer.token(claims={"aud": "wxauth"}))
        assert len(told(caplog)) == lines
    await refuse(guard, issuer.token(expires_in=-45))
    assert told(caplog)[-1] == "expired 45 s ago by this machine's clock"


async def test_another_issuers_key_is_told_by_its_id(guard: BearerGuard, caplog: pytest.LogCaptureFixture) -> None:
    other = TestIssuer()
    await refuse(guard, other.token())
    assert told(caplog) == [f"its kid is '{other.jwks['keys'][0]['kid']}', which is no key of 'https://auth.test'"]


async def test_an_unverified_key_id_is_escaped_and_bounded(
    issuer: TestIssuer, guard: BearerGuard, caplog: pytest.LogCaptureFixture
) -> None:
    await refuse(guard, Forger(issuer.token(), issuer._key).with_header(kid="\n\x1b登" + "x" * 4000))
    (line,) = told(caplog)
    assert line.startswith(r"its kid is '\n\x1b\u767bxxx")
    assert line.isprintable()
    assert len(line) < 300


async def test_claims_are_not_told_before_the_signature_fits(
    issuer: TestIssuer, guard: BearerGuard, caplog: pytest.LogCaptureFixture
) -> None:
    kid = issuer.jwks["keys"][0]["kid"]
    forged = Forger(issuer.token(claims={"aud": "evil"}), TestIssuer()._key).with_claims(iss="https://evil.test")
    await refuse(guard, forged)
    assert told(caplog) == [f"its signature does not fit the key '{kid}' of 'https://auth.test'"]


async def test_no_token_is_told_and_nothing_of_malformed_ones(
    issuer: TestIssuer, guard: BearerGuard, caplog: pytest.LogCaptureFixture
) -> None:
    await refuse(guard, "not a token")
    await refuse(guard, Forger(issuer.token(), issuer._key).without_header("kid"))
    assert told(caplog) == []
    for forge in HOSTILE.values():
        token = forge(Forger(issuer.token(), issuer._key))
        await refuse(guard, token)
        assert not any(part and part in caplog.text for part in token.split(".") if len(part) > 40)


async def test_nothing_is_told_of_good_tokens(
    issuer: TestIssuer, guard: BearerGuard, caplog: pytest.LogCaptureFixture
) -> None:
    await guard.verify(issuer.token())
    guard.verify_sync(issuer.token())
    assert told(caplog) == []
