"""Public keys for ES256, read from JWKs (RFC 7517), and the interfaces for finding a key by its id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from wxauth_guard.claims import ALGORITHM
from wxauth_guard.json_texts import from_base64url

if TYPE_CHECKING:
    from typing import Self

_COORDINATE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # of a point on P-256: 32 bytes, encoded as base64url
_MAX_KID_LENGTH: Final = 256
_SIGNATURE_LENGTH: Final = 64
_ECDSA: Final = ec.ECDSA(SHA256())


class InvalidKey(ValueError):
    """The error for a JWK that cannot be used to verify ES256 signatures."""


@dataclass(frozen=True)
class VerificationKey:
    """A public key for ES256 signatures. The key is parsed once, because parsing takes as long as verifying."""

    kid: str
    public_key: ec.EllipticCurvePublicKey

    @classmethod
    def from_jwk(cls, member: Mapping[str, Any]) -> Self:
        """Build a key from one member of a JWK set. The fields of a private key, such as `d`, are ignored.

        Raises: InvalidKey, if the member is not a key for ES256 with a kid.
        """
        kid, x, y = member.get("kid"), member.get("x"), member.get("y")
        if not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID_LENGTH:
            raise InvalidKey("kid is missing or has an invalid length")
        if member.get("kty") != "EC" or member.get("crv") != "P-256":
            raise InvalidKey("not an EC key on P-256")
        if member.get("use", "sig") != "sig" or member.get("alg", ALGORITHM) != ALGORITHM:
            raise InvalidKey("not a key for ES256 signatures")
        point = ec.EllipticCurvePublicNumbers(_coordinate(x), _coordinate(y), ec.SECP256R1())
        try:
            public_key = point.public_key()
        except ValueError as exc:
            raise InvalidKey("the point is not on the curve") from exc
        return cls(kid, public_key)

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """Return whether this key has made a signature, which consists of r and s (RFC 7518, section 3.4)."""
        if len(signature) != _SIGNATURE_LENGTH:
            return False
        half = _SIGNATURE_LENGTH // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        try:
            self.public_key.verify(encode_dss_signature(r, s), signed, _ECDSA)
        except InvalidSignature:
            return False
        return True


def _coordinate(text: object) -> int:
    if not isinstance(text, str) or not _COORDINATE.fullmatch(text):
        raise InvalidKey("x or y is not a coordinate of P-256")
    return int.from_bytes(from_base64url(text), "big")


def verification_keys(members: Iterable[Any]) -> dict[str, VerificationKey]:
    """Return the usable keys of a JWK set, by kid.

    If two usable keys have the same kid, ignore both, because the kid of a token does not say which key signed it.
    """
    by_kid: dict[str, VerificationKey] = {}
    ambiguous: set[str] = set()
    for member in members:
        if not isinstance(member, Mapping):
            continue
        try:
            key = VerificationKey.from_jwk(member)
        except InvalidKey:  # for example a key of another kind, which the issuer may publish as well
            continue
        if key.kid in by_kid:
            ambiguous.add(key.kid)
        by_kid[key.kid] = key
    return {kid: key for kid, key in by_kid.items() if kid not in ambiguous}


class KeySource(Protocol):
    """A source of verification keys."""

    async def find(self, kid: str) -> VerificationKey | None:
        """Return the key with this id; None if it is unknown. Raises: KeysUnavailable, if the keys cannot be read."""


class SyncKeySource(Protocol):
    """A source of verification keys for threads that have no event loop."""

    def find_sync(self, kid: str) -> VerificationKey | None:
        """Return the key with this id, as `KeySource.find` does, but block the thread while the keys are fetched."""
