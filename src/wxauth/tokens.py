"""The private keys of the service, with their public JWKs (RFC 7517), and access tokens signed with an ES256 key."""

import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar, Final, Self
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from jose import jwk

from wxauth_guard.claims import ALGORITHM, TOKEN_TYPE, is_document_url
from wxauth_guard.json_texts import to_json
from wxauth_guard.keys import InvalidKey, VerificationKey

_JTI_BYTES: Final = 16  # two tokens practically never get the same id


def base64url(data: bytes) -> bytes:
    """Encode bytes as base64url without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=")


class PrivateKey:
    """A private key for one algorithm, with its public JWK.

    ES256 keys (`SigningKey`) sign access tokens. RS256 keys (`keys.keyring.RsaKey`) sign the id_tokens and logout
    tokens of clients that use RS256, and ES256 keys sign those of all other clients.
    """

    __slots__ = ("_private_key", "kid", "public_jwk", "signer")
    alg: ClassVar[str]
    kind: ClassVar[type[Any]]  # of the `cryptography` library

    def __init__(self, private_key: Any) -> None:
        self._private_key = private_key
        self.signer: Any = jwk.construct(private_key, self.alg)  # built once, because building it is slow
        public = self.signer.public_key().to_dict()
        # For the thumbprint, RFC 7638 requires exactly these members, in alphabetical order.
        required = {name: public[name] for name in sorted(public) if name != "alg"}
        self.kid = base64url(sha256(to_json(required)).digest()).decode()
        self.public_jwk: dict[str, str] = {**required, "alg": self.alg, "use": "sig", "kid": self.kid}

    @classmethod
    def generate(cls) -> Self:
        raise NotImplementedError

    @classmethod
    def from_der(cls, der: bytes) -> Self:
        """Load a private key that `to_der` has written. Never use this function for other keys.

        The numbers of an RSA key are not checked, because the check would block the event loop for 30 ms. A stored key
        is encrypted, which proves that this service wrote it.
        """
        private_key = load_der_private_key(der, password=None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(private_key, cls.kind):
            raise InvalidKey(f"not a private key for {cls.alg}")
        return cls(private_key)

    def to_der(self) -> bytes:
        """Return the private key as PKCS#8. Encrypt it before you store it."""
        der: bytes = self._private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return der

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kid}>"


class SigningKey(PrivateKey):
    """An ES256 key, with its public key and the encoded header of the access tokens that it signs."""

    __slots__ = ("header", "verification_key")
    alg = ALGORITHM
    kind = ec.EllipticCurvePrivateKey

    def __init__(self, private_key: ec.EllipticCurvePrivateKey) -> None:
        super().__init__(private_key)
        self.verification_key = VerificationKey.from_jwk(self.public_jwk)
        self.header = base64url(to_json({"alg": ALGORITHM, "kid": self.kid, "typ": TOKEN_TYPE}))

    @classmethod
    def generate(cls) -> Self:
        return cls(ec.generate_private_key(ec.SECP256R1()))


@dataclass(slots=True, kw_only=True)  # not frozen, which saves 3 µs for each token
class AccessClaims:
    """What an access token says, apart from the claims that all tokens of an issuer share."""

    user_id: UUID
    session_id: UUID
    app_id: str  # of the identity that the user has logged in with, like the openid
    openid: str
    roles: Sequence[str]
    issued_at: int  # epoch seconds
    expires_in: int  # seconds
    external_id: str | None = None
    client_id: str | None = None  # None for a token of the app itself, whose claim `client_id` is the `app_id`
    scope: str = ""
    added: Mapping[str, Any] | None = None  # the operator's own, without the names of wxauth's claims
    audience: str | None = None  # a resource
    auth_time: int | None = None  # for a resource: when the user proved who they are


class TokenIssuer:
    """The factory of signed access tokens.

    Args:
        audience: The claim `aud` of each token that is not for a resource.
        encode: Encodes the claims as JSON. The service passes pydantic-core's function (2 µs; the default takes 8 µs).
    """

    def __init__(self, *, issuer: str, audience: str, encode: Callable[[Any], bytes] = to_json) -> None:
        self.issuer = issuer
        self.audience = audience
        self._encode = encode

    def issue(self, key: SigningKey, access: AccessClaims) -> str:
        """Sign an access token. Of the user, an unregistered client learns only the id."""
        client_id = access.client_id
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": str(access.user_id),
            "aud": access.audience or self.audience,
            "exp": access.issued_at + access.expires_in,
            "iat": access.issued_at,
            "jti": os.urandom(_JTI_BYTES).hex(),
            "client_id": access.app_id if client_id is None else client_id,
            "sid": str(access.session_id),
        }
        if client_id is not None:
            claims["scope"] = access.scope
        if access.auth_time is not None:
            claims["auth_time"] = access.auth_time
        # The `client_id` of an unregistered client is the URL of a document, and anyone can publish such a document.
        if client_id is None or not is_document_url(client_id):
            claims["openid"] = access.openid
            if client_id is not None:
                claims["app_id"] = access.app_id
            if access.roles:
                claims["roles"] = list(access.roles)
            if access.external_id is not None:
                claims["external_id"] = access.external_id
            if access.added:
                claims |= access.added
        return sign(key.signer, key.header, self._encode(claims))


def sign(signer: Any, header: bytes, payload: bytes) -> str:
    """Return a compact JWS (RFC 7515, section 3.1). `header` must already be encoded as base64url."""
    signing_input = header + b"." + base64url(payload)
    signature: bytes = signer.sign(signing_input)
    return (signing_input + b"." + base64url(signature)).decode()
