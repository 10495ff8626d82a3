"""ES256 against published vectors, and against the signature that differs from a good one by the group's order."""

from hashlib import sha256

import pytest
from ecdsa import NIST256p
from ecdsa.ellipticcurve import Point

from tests.guard.fakes import ISSUER, NOW, SESSION_ID, USER_ID
from tests.tokens.hostile import FIELD, ORDER, RFC_7515_ES256, Forger, decode, encode
from wxauth.errors import InvalidToken
from wxauth.tokens.keys import SigningKey, TokenIssuer, VerificationKey
from wxauth.tokens.verifier import Verifier


def key_at(x: int, y: int, *, kid: str = "1") -> VerificationKey:
    return VerificationKey.from_jwk(
        {"kty": "EC", "crv": "P-256", "kid": kid, "x": encode(x.to_bytes(32)), "y": encode(y.to_bytes(32))}
    )


def numbers(text: str) -> tuple[int, int]:
    return int(text[:64], 16), int(text[64:], 16)


RFC_7515_KEY = VerificationKey.from_jwk(  # A.3.1
    {
        "kty": "EC",
        "crv": "P-256",
        "kid": "1",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
)
RFC_6979_KEY = key_at(  # A.2.5
    *numbers(
        "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"
        "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"
    )
)


@pytest.mark.parametrize(
    ("key", "message", "signature"),
    [
        pytest.param(
            RFC_7515_KEY,
            RFC_7515_ES256.rpartition(".")[0].encode(),
            decode(RFC_7515_ES256.rpartition(".")[2]),
            id="RFC 7515, A.3",
        ),
        pytest.param(
            RFC_6979_KEY,
            b"sample",
            bytes.fromhex(
                "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716"
                "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
            ),
            id="RFC 6979, A.2.5, sample",
        ),
        pytest.param(
            RFC_6979_KEY,
            b"test",
            bytes.fromhex(
                "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367"
                "019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083"
            ),
            id="RFC 6979, A.2.5, test",
        ),
    ],
)
def test_a_published_signature_is_valid_only_for_its_message(
    key: VerificationKey, message: bytes, signature: bytes
) -> None:
    assert key.key.verify(message, signature)
    assert not key.key.verify(message + b"\0", signature)


class OneKey:
    def __init__(self, key: VerificationKey) -> None:
        self.key = key

    async def find(self, kid: str) -> VerificationKey | None:
        return self.key if kid == self.key.kid else None


async def test_r_and_s_must_be_below_the_groups_order() -> None:
    """Where R's x is above n, r is x - n; x itself, which fits into 32 bytes as well, is no r (SEC 1, 4.1.4)."""
    signer = SigningKey.generate()
    forger = Forger(
        TokenIssuer(issuer=ISSUER, audience="wxauth").issue(
            signer, user_id=USER_ID, session_id=SESSION_ID, app_id="wx", openid="o", roles=(), now=NOW, expires_in=900
        ),
        signer,
    )
    x = FIELD - 3
    curve = NIST256p.curve
    y = pow(x**3 + curve.a() * x + curve.b(), (FIELD + 1) // 4, FIELD)
    # The key for which this R and s = 7 are a signature of this token: Q = (sR - eG) / r.
    r, s = x - ORDER, 7
    digest = int.from_bytes(sha256(".".join(forger.parts[:2]).encode()).digest())
    sum_ = Point(curve, x, y, ORDER) * s + NIST256p.generator.to_affine() * (-digest % ORDER)
    point = sum_ * pow(r, -1, ORDER)
    keys = OneKey(key_at(point.x(), point.y(), kid=signer.kid))
    verifier = Verifier(issuer=ISSUER, audience="wxauth", keys=keys)

    assert (await verifier.verify(forger.with_numbers(r, s), now=NOW)).id == USER_ID
    for beyond in ((r + ORDER, s), (r, s + ORDER)):
        with pytest.raises(InvalidToken):
            await verifier.verify(forger.with_numbers(*beyond), now=NOW)
