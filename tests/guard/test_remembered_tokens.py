"""A guard remembers the users of signed tokens, but checks a token's times, scope and key at every use."""

from __future__ import annotations

import tracemalloc
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.guard.fakes import ISSUER, NOW, USER_ID, token_of
from tests.guard.hostile import FIELD, ORDER, Forger, encode
from wxauth_guard.claims import Principal
from wxauth_guard.errors import InsufficientScope, InvalidToken, KeysUnavailable, TokenExpired
from wxauth_guard.keys import VerificationKey
from wxauth_guard.testing import TestKey
from wxauth_guard.verifier import Verifier

B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
"""The number `b` of P-256's equation."""


class Published:
    """A verifier, and the keys that the issuer publishes. Tests change these keys."""

    def __init__(self, signer: TestKey) -> None:
        self.signer = signer
        self.keys = {signer.kid: signer.verification_key}
        self.available = True
        self.forger = Forger(token_of(signer, "admin"), signer)
        self._verifier = Verifier(issuer=ISSUER, audience="wxauth", keys=self)

    async def find(self, kid: str) -> VerificationKey | None:
        if not self.available:
            raise KeysUnavailable("a day without the issuer")
        return self.keys.get(kid)

    async def verify(self, token: str, *, now: float = NOW, allows_scope: bool = True) -> Principal:
        return await self._verifier.verify(token, now=now, allows_scope=allows_scope)


@pytest.fixture(scope="module")
def signer() -> TestKey:
    return TestKey()


@pytest.fixture
def published(signer: TestKey) -> Published:
    return Published(signer)


def added(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """Add two points of P-256, whose sum must not be the point at infinity."""
    (x1, y1), (x2, y2) = one, other
    slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, FIELD) if one == other else (y2 - y1) * pow(x2 - x1, -1, FIELD)
    x = (slope * slope - x1 - x2) % FIELD
    return x, (slope * (x1 - x) - y1) % FIELD


def multiplied(point: tuple[int, int], factor: int) -> tuple[int, int]:
    result = point
    for bit in f"{factor:b}"[1:]:
        result = added(result, result)
        if bit == "1":
            result = added(result, point)
    return result


async def test_a_known_token_in_another_spelling_is_checked_again(published: Published) -> None:
    await published.verify(published.forger.token)
    r, s = published.forger.numbers
    await published.verify(published.forger.with_numbers(r, ORDER - s))
    token, exchanged = published.forger.token, published.forger.with_numbers(s, r)
    for spelling in (
        f"{token}=",
        f"{token} ",
        token[:-1],
        *[exchanged] * 2,
        *[published.forger.with_numbers(1, 1)] * 2,
    ):
        with pytest.raises(InvalidToken):
            await published.verify(spelling)


async def test_a_known_token_expires_at_its_time(published: Published) -> None:
    await published.verify(published.forger.token, now=NOW + 929)
    with pytest.raises(TokenExpired):
        await published.verify(published.forger.token, now=NOW + 930)


@pytest.mark.parametrize("name", ["iat", "nbf"])
async def test_a_known_token_is_not_yet_good_when_the_clock_goes_back(published: Published, name: str) -> None:
    token = published.forger.with_claims(**{"iat": NOW - 100, name: NOW})
    await published.verify(token)
    with pytest.raises(InvalidToken):
        await published.verify(token, now=NOW - 31)
    await published.verify(token, now=NOW - 30)


async def test_a_known_token_needs_its_own_key_at_each_use(published: Published) -> None:
    await published.verify(published.forger.token)
    own = published.keys
    namesake = {kid: VerificationKey(kid, TestKey().verification_key.public_key) for kid in own}
    for keys in ({}, namesake):
        published.keys = keys
        with pytest.raises(InvalidToken):
            await published.verify(published.forger.token)
    published.keys = own
    await published.verify(published.forger.token)
    published.available = False
    with pytest.raises(KeysUnavailable):
        await published.verify(published.forger.token)


async def test_a_known_token_with_a_scope_is_refused_where_none_is_allowed(published: Published) -> None:
    token = published.forger.with_claims(scope="", app_id="wx1")
    user = await published.verify(token)
    with pytest.raises(InsufficientScope):
        await published.verify(token, allows_scope=False)
    assert await published.verify(token) == user


async def test_changes_to_returned_claims_do_not_affect_the_next_caller(published: Published) -> None:
    token = published.forger.with_claims(address={"city": "深圳"})
    user = await published.verify(token)
    user.claims["roles"].append("auditor")
    user.claims["address"]["city"] = "广州"
    user = await published.verify(token)
    assert (user.claims["roles"], user.claims["address"]) == (["admin"], {"city": "深圳"})


async def test_what_is_remembered_of_tokens_is_bounded(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wxauth_guard.verifier.REMEMBERED_TOKENS", 50)
    tracemalloc.start()
    sizes = []
    for number in range(200):
        await published.verify(published.forger.with_claims(x=str(number)))
        await published.verify(published.forger.with_claims(x="x" * 5000))
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[-1] - sizes[99] < sizes[49] - sizes[10], "as much as of 40 tokens"


async def test_r_and_s_must_be_below_the_groups_order(published: Published) -> None:
    """Check that x is rejected as r if R's x is above n.

    SEC 1, section 4.1.4, requires r to be below n. In this case r is x - n, although x fits into 32 bytes too.
    """
    x = FIELD - 3
    y = pow(x**3 - 3 * x + B, (FIELD + 1) // 4, FIELD)
    # With the key Q = (sR - eG) / r, this R and s = 7 are a valid signature of the token.
    r, s = x - ORDER, 7
    digest = int.from_bytes(sha256(".".join(published.forger.parts[:2]).encode()).digest(), "big")
    generated = ec.derive_private_key(-digest % ORDER, ec.SECP256R1()).public_key().public_numbers()
    point = multiplied(added(multiplied((x, y), s), (generated.x, generated.y)), pow(r, -1, ORDER))
    coordinates = {name: encode(number.to_bytes(32, "big")) for name, number in zip("xy", point)}
    jwk = {"kty": "EC", "crv": "P-256", "kid": published.forger.key.kid, **coordinates}
    published.keys = {published.forger.key.kid: VerificationKey.from_jwk(jwk)}
    assert (await published.verify(published.forger.with_numbers(r, s))).id == USER_ID
    for beyond in ((r + ORDER, s), (r, s + ORDER)):
        with pytest.raises(InvalidToken):
            await published.verify(published.forger.with_numbers(*beyond))
