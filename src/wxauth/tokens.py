"""Private keys (RFC 7517), built once, and the access tokens that they sign."""

import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, ClassVar, Self
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from jose import jwk

from wxauth_guard.claims import ALGORITHM, TOKEN_TYPE, is_document
from wxauth_guard.keys import InvalidKey, VerificationKey
from wxauth_guard.texts import to_json


def base64url(data: bytes) -> bytes:
    """Unpadded base64url (RFC 7515, section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=")


class PrivateKey:
    """A private key of one algorithm, with its public JWK."""

    __slots__ = ("_private_key", "kid", "public_jwk", "signer")
    alg: ClassVar[str]
    kind: ClassVar[type[Any]]
    """Its type in `cryptography`."""

    def __init__(self, private_key: Any) -> None:
        self._private_key = private_key
        self.signer: Any = jwk.construct(private_key, self.alg)
        """python-jose's key object."""
        public = self.signer.public_key().to_dict()
        required = {name: public[name] for name in sorted(public) if name != "alg"}
        self.kid = base64url(sha256(to_json(required)).digest()).decode()
        """The thumbprint of the public JWK (RFC 7638)."""
        self.public_jwk: dict[str, str] = {**required, "alg": self.alg, "use": "sig", "kid": self.kid}

    @classmethod
    def generate(cls) -> Self:
        """Make a new key."""
        raise NotImplementedError

    @classmethod
    def from_der(cls, der: bytes) -> Self:
        """Load a private key from `to_der`, and from nowhere else: the numbers of an RSA key are not checked.

        The check would block the event loop for 30 ms. The seal of a stored key proves that it is our own.

        Raises: InvalidKey, for another type of key.
        """
        private_key = load_der_private_key(der, password=None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(private_key, cls.kind):
            raise InvalidKey(f"not a private key for {cls.alg}")
        return cls(private_key)

    def to_der(self) -> bytes:
        """The private key as PKCS#8. It must be sealed before it is stored."""
        der: bytes = self._private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return der

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kid}>"


class SigningKey(PrivateKey):
    """A key of ES256, with its public key and the header of the tokens that it signs."""

    __slots__ = ("header", "verification_key")
    alg = ALGORITHM
    kind = ec.EllipticCurvePrivateKey

    def __init__(self, private_key: ec.EllipticCurvePrivateKey) -> None:
        super().__init__(private_key)
        self.verification_key = VerificationKey.from_jwk(self.public_jwk)
        self.header = base64url(to_json({"alg": ALGORITHM, "kid": self.kid, "typ": TOKEN_TYPE}))

    @classmethod
    def generate(cls) -> Self:
        """Make a new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))


class TokenIssuer:
    """Signs access tokens.

    Args:
        issuer: `iss`.
        audience: `aud`.
        encode: Writes the claims as JSON. The service has pydantic-core's, which takes 2 µs, the default 8.
    """

    def __init__(self, *, issuer: str, audience: str, encode: Callable[[Any], bytes] = to_json) -> None:
        self.issuer = issuer
        self.audience = audience
        self._encode = encode

    def issue(
        self,
        key: SigningKey,
        *,
        user_id: UUID,
        session_id: UUID,
        app_id: str,
        openid: str,
        roles: Sequence[str],
        now: int,
        expires_in: int,
        external_id: str | None = None,
        client_id: str | None = None,
        scope: str = "",
        added: Mapping[str, Any] | None = None,
        audience: str | None = None,
        auth_time: int | None = None,
    ) -> str:
        """Sign an access token. `now` is in epoch seconds, `expires_in` in seconds.

        In a website's token, `client_id` is the site, `app_id` the mini-program, and `scope` the scopes granted,
        separated by spaces. Without it, the claim `client_id` is `app_id`. `added` are more claims of other names.
        `audience` is that of a token for one resource, `auth_time` when its person has approved. If its client is one
        by document, `sub` alone names the person.
        """
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": str(user_id),
            "aud": audience or self.audience,
            "exp": now + expires_in,
            "iat": now,
            "jti": os.urandom(16).hex(),
            "client_id": app_id,
            "sid": str(session_id),
            "openid": openid,
        }
        if client_id is not None:
            claims |= {"client_id": client_id, "app_id": app_id, "scope": scope}
        if auth_time is not None:
            claims["auth_time"] = auth_time
        if client_id is not None and is_document(client_id):
            del claims["openid"], claims["app_id"]
            return sign(key.signer, key.header, self._encode(claims))
        if roles:
            claims["roles"] = list(roles)
        if external_id is not None:
            claims["external_id"] = external_id
        if added:
            claims |= added
        return sign(key.signer, key.header, self._encode(claims))


def sign(signer: Any, header: bytes, payload: bytes) -> str:
    """A compact JWS (RFC 7515, section 3.1). `signer` is python-jose's key object, `header` is in base64url already."""
    signing_input = header + b"." + base64url(payload)
    signature: bytes = signer.sign(signing_input)
    return (signing_input + b"." + base64url(signature)).decode()
