"""The private keys of the service, with their public JWKs (RFC 7517), and access tokens signed with an ES256 key."""

import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, ClassVar, Final, Self
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from jose import jwk

from wxauth_guard.claims import ALGORITHM, TOKEN_TYPE, is_document_url
from wxauth_guard.json_texts import to_json
from wxauth_guard.keys import InvalidKey, VerificationKey

_JTI_BYTES: Final = 16
"""The number of random bytes in a token's id, large enough that two tokens practically never get the same id."""


def base64url(data: bytes) -> bytes:
    """Encode bytes as base64url without padding (RFC 7515, section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=")


class PrivateKey:
    """A private key for one algorithm, with its public JWK.

    The subclasses are `SigningKey` (ES256), which signs access tokens, and `keys.key_sets.RsaKey` (RS256). RS256 keys
    sign the id_tokens and logout tokens of clients that use RS256, and ES256 keys sign those of all other clients.
    """

    __slots__ = ("_private_key", "kid", "public_jwk", "signer")
    alg: ClassVar[str]
    kind: ClassVar[type[Any]]
    """The class of the key in the `cryptography` library."""

    def __init__(self, private_key: Any) -> None:
        self._private_key = private_key
        self.signer: Any = jwk.construct(private_key, self.alg)
        """The key object of python-jose, which is built once because building it is slow."""
        public = self.signer.public_key().to_dict()
        # For the thumbprint, RFC 7638 requires exactly these members, in alphabetical order.
        required = {name: public[name] for name in sorted(public) if name != "alg"}
        self.kid = base64url(sha256(to_json(required)).digest()).decode()
        """The thumbprint of the public JWK (RFC 7638)."""
        self.public_jwk: dict[str, str] = {**required, "alg": self.alg, "use": "sig", "kid": self.kid}

    @classmethod
    def generate(cls) -> Self:
        """Generate a new key for the algorithm of this class."""
        raise NotImplementedError

    @classmethod
    def from_der(cls, der: bytes) -> Self:
        """Load a private key that `to_der` has written. Never use this function for other keys.

        The numbers of an RSA key are not checked, because the check would block the event loop for 30 ms. A stored key
        is encrypted, which proves that this service wrote it.

        Raises: InvalidKey, if the key has another type.
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
        """Generate a new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))


class TokenIssuer:
    """The factory of signed access tokens.

    Args:
        issuer: The claim `iss`.
        audience: The claim `aud` of each token that is not for a resource.
        encode: The function that encodes the claims as JSON. The service passes pydantic-core's function, which takes 2
            µs. The default takes 8 µs.
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
        """Sign an access token.

        If the operator has not registered the client, its `client_id` is the URL of a document that describes the
        client. Anyone can publish such a document, so the client learns only the user's id, and its token has no
        claims from `app_id`, `openid`, `roles`, `external_id` and `added`.

        Args:
            key: The key that signs the token.
            user_id: The claim `sub`.
            session_id: The claim `sid`.
            app_id: The app of the identity that the user has logged in with.
            openid: The openid of this identity.
            roles: The user's roles. If there are none, the token has no claim `roles`.
            now: The time at which the token is issued, in epoch seconds.
            expires_in: The lifetime of the token, in seconds.
            external_id: The user's id in the operator's own or previous system; None if there is none.
            client_id: The website that gets the token; None for a token of the app itself, whose claim `client_id` is
                the `app_id`.
            scope: The scopes of a website's token, separated by spaces.
            added: The operator's own claims, which must not have the names of wxauth's claims.
            audience: The URL of the resource, if the token is for a resource.
            auth_time: The time at which the user proved who they are, in epoch seconds, if the token is for a resource.
        """
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": str(user_id),
            "aud": audience or self.audience,
            "exp": now + expires_in,
            "iat": now,
            "jti": os.urandom(_JTI_BYTES).hex(),
            "client_id": app_id if client_id is None else client_id,
            "sid": str(session_id),
        }
        if client_id is not None:
            claims["scope"] = scope
        if auth_time is not None:
            claims["auth_time"] = auth_time
        if client_id is None or not is_document_url(client_id):
            claims["openid"] = openid
            if client_id is not None:
                claims["app_id"] = app_id
            if roles:
                claims["roles"] = list(roles)
            if external_id is not None:
                claims["external_id"] = external_id
            if added:
                claims |= added
        return sign(key.signer, key.header, self._encode(claims))


def sign(signer: Any, header: bytes, payload: bytes) -> str:
    """Return a compact JWS (RFC 7515, section 3.1), signed with a key object of python-jose.

    `header` must already be encoded as base64url. The function encodes only the payload.
    """
    signing_input = header + b"." + base64url(payload)
    signature: bytes = signer.sign(signing_input)
    return (signing_input + b"." + base64url(signature)).decode()
