"""Keys for RS256, which sign id_tokens. Access tokens have another algorithm, so that no key can sign both."""

from hashlib import sha256
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from jose import jwk
from pydantic_core import to_json

from wxauth.tokens.keys import InvalidKey, base64url

RSA_ALGORITHM: Final = "RS256"

_BITS: Final = 2048
_EXPONENT: Final = 65537


class RsaKey:
    """A private key, with its public half."""

    __slots__ = ("_private_key", "kid", "public_jwk", "signer", "verifier")

    def __init__(self, private_key: rsa.RSAPrivateKey) -> None:
        self._private_key = private_key
        self.signer: Any = jwk.construct(private_key, RSA_ALGORITHM)
        self.verifier: Any = self.signer.public_key()
        numbers = private_key.public_key().public_numbers()
        required = {"e": _integer(numbers.e), "kty": "RSA", "n": _integer(numbers.n)}
        self.kid = base64url(sha256(to_json(required)).digest()).decode()
        """The thumbprint of the public JWK (RFC 7638)."""
        self.public_jwk: dict[str, str] = {**required, "alg": RSA_ALGORITHM, "use": "sig", "kid": self.kid}

    @classmethod
    def generate(cls) -> Self:
        """Make a new key."""
        return cls(rsa.generate_private_key(_EXPONENT, _BITS))

    @classmethod
    def from_der(cls, der: bytes) -> Self:
        """Load a private key from `to_der`, and from nowhere else: the key's numbers are not checked.

        The check would block the event loop for 30 ms. The seal proves that the key is our own.
        """
        private_key = load_der_private_key(der, password=None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(private_key, rsa.RSAPrivateKey):
            raise InvalidKey("not an RSA private key")
        return cls(private_key)

    def to_der(self) -> bytes:
        """The private key as PKCS#8. It must be sealed before it is stored."""
        return self._private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def __repr__(self) -> str:
        return f"<RsaKey {self.kid}>"


def verifier_of(public_jwk: dict[str, Any]) -> Any:
    """The verifier for the signatures of a public key: python-jose's key object."""
    return jwk.construct(public_jwk, RSA_ALGORITHM)


def _integer(number: int) -> str:
    """An integer as in RFC 7518, section 6.3.1."""
    return base64url(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode()
