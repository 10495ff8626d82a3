"""Keys for RS256, which sign id_tokens: another algorithm than that of access tokens, so that no key signs both."""

from hashlib import sha256
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from jose import jwk
from pydantic_core import to_json

from wxauth.tokens.keys import InvalidKey, base64url

ALGORITHM: Final = "RS256"

_BITS: Final = 2048
_EXPONENT: Final = 65537


class RsaKey:
    """A private key, with its public half."""

    __slots__ = ("_private_key", "kid", "public_jwk", "signer", "verifier")

    def __init__(self, private_key: rsa.RSAPrivateKey) -> None:
        self._private_key = private_key
        self.signer: Any = jwk.construct(private_key, ALGORITHM)
        self.verifier: Any = self.signer.public_key()
        numbers = private_key.public_key().public_numbers()
        required = {"e": _integer(numbers.e), "kty": "RSA", "n": _integer(numbers.n)}
        self.kid = base64url(sha256(to_json(required)).digest()).decode()
        """The JWK's own thumbprint (RFC 7638)."""
        self.public_jwk: dict[str, str] = {**required, "alg": ALGORITHM, "use": "sig", "kid": self.kid}

    @classmethod
    def generate(cls) -> Self:
        """Make a new key."""
        return cls(rsa.generate_private_key(_EXPONENT, _BITS))

    @classmethod
    def from_der(cls, der: bytes) -> Self:
        """Load what `to_der` gave, and nothing else: whether the numbers are a good key is not looked at again.

        To look would stop the event loop for 30 ms. The seal says that the key is one of our own.
        """
        private_key = load_der_private_key(der, password=None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(private_key, rsa.RSAPrivateKey):
            raise InvalidKey("not an RSA private key")
        return cls(private_key)

    def to_der(self) -> bytes:
        """The private key, PKCS#8. To be sealed before it is stored."""
        return self._private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def __repr__(self) -> str:
        return f"<RsaKey {self.kid}>"


def verifier_of(public_jwk: dict[str, Any]) -> Any:
    """What checks signatures by the public half of a key."""
    return jwk.construct(public_jwk, ALGORITHM)


def _integer(number: int) -> str:
    """As RFC 7518, section 6.3.1, writes one."""
    return base64url(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode()
