"""A guard logs why it rejects a token, and never logs the token itself."""

import logging
from typing import Any

import pytest

from tests.guard.fakes import NOW, Timer
from tests.guard.hostile import HOSTILE, Forger
from wxauth_guard.errors import InvalidToken
from wxauth_guard.testing import TestIssuer


class Watched:
    """A guard whose log the test reads."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        self.timer = Timer()
        self.timer.seconds = NOW
        self.issuer = TestIssuer(audience="shop", clock=self.timer)
        self.guard = self.issuer.guard(websites=True)
        self.log = log

    def forger(self, **fields: Any) -> Forger:
        return Forger(self.issuer.token(**fields), self.issuer.key)

    async def refuse(self, token: str, *, by_thread: bool = False) -> None:
        with pytest.raises(InvalidToken):
            self.guard.verify_sync(token) if by_thread else await self.guard.verify(token)

    @property
    def told(self) -> list[str]:
        """Return the reasons in the log."""
        assert {(line.name, line.levelno) for line in self.log.records} <= {("wxauth_guard", logging.WARNING)}
        return [line.getMessage().removeprefix("A token was refused: ") for line in self.log.records]


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Watched:
    return Watched(caplog)


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
    watched: Watched, claims: dict[str, Any], reason: str, by_thread: bool
) -> None:
    await watched.refuse(watched.issuer.token(claims=claims), by_thread=by_thread)
    assert watched.told == [reason]


async def test_the_same_cause_is_told_once_in_a_minute(watched: Watched) -> None:
    for seconds, lines in ((0, 1), (59, 1), (60, 2), (119, 2), (-3600, 3)):
        watched.timer.seconds = NOW + seconds
        for _ in range(3):
            await watched.refuse(watched.issuer.token(claims={"aud": "wxauth"}))
        assert len(watched.told) == lines
    await watched.refuse(watched.issuer.token(expires_in=-45))
    assert watched.told[-1] == "expired 45 s ago by this machine's clock"


async def test_another_issuers_key_is_told_by_its_id(watched: Watched) -> None:
    other = TestIssuer()
    await watched.refuse(other.token())
    assert watched.told == [f"its kid is '{other.jwks['keys'][0]['kid']}', which is no key of 'https://auth.test'"]


async def test_an_unverified_key_id_is_escaped_and_bounded(watched: Watched) -> None:
    await watched.refuse(watched.forger().with_header(kid="\n\x1b登" + "x" * 4000))
    (line,) = watched.told
    assert line.startswith(r"its kid is '\n\x1b\u767bxxx")
    assert line.isprintable()
    assert len(line) < 300


async def test_claims_are_not_told_before_the_signature_fits(watched: Watched) -> None:
    forger = watched.forger(claims={"aud": "evil"})
    forger.key = TestIssuer().key
    await watched.refuse(forger.with_claims(iss="https://evil.test"))
    kid = watched.issuer.jwks["keys"][0]["kid"]
    assert watched.told == [f"its signature does not fit the key '{kid}' of 'https://auth.test'"]


async def test_no_token_is_told_and_nothing_of_good_or_malformed_ones(watched: Watched) -> None:
    await watched.guard.verify(watched.issuer.token())
    watched.guard.verify_sync(watched.issuer.token())
    await watched.refuse("not a token")
    await watched.refuse(watched.forger().without_header("kid"))
    assert watched.told == []
    for forge in HOSTILE.values():
        token = forge(watched.forger())
        await watched.refuse(token)
        assert not any(part and part in watched.log.text for part in token.split(".") if len(part) > 40)
