"""Public keys for ES256, read from JWKs (RFC 7517), and the interfaces for finding a key by its id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from jose import jwk
from jose.exceptions import JOSEError

from wxauth_guard.claims import ALGORITHM

if TYPE_CHECKING:
    from typing import Self

_COORDINATE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
"""The pattern of a coordinate of a point on P-256: 32 bytes, encoded as base64url."""
_MAX_KID_LENGTH: Final = 256
"""The length limit, in characters, of a key's id (`kid`)."""


class InvalidKey(ValueError):
    """The error for a JWK that cannot be used to verify ES256 signatures."""


@dataclass(frozen=True)
class VerificationKey:
    """A parsed public key, which verifies ES256 signatures."""

    kid: str
    jose_key: Any
    """The key object of python-jose. It is stored, because parsing a key takes as long as checking a signature."""

    @classmethod
    def from_jwk(cls, member: Mapping[str, Any]) -> Self:
        """Build a key from one member of a JWK set. The fields of a private key, such as `d`, are ignored.

        Raises: InvalidKey, if the kid is missing or too long, if the type, curve, use or algorithm is not the one for
            ES256, or if x and y are not a point on the curve.
        """
        kid, x, y = member.get("kid"), member.get("x"), member.get("y")
        if not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID_LENGTH:
            raise InvalidKey("kid is missing or has an invalid length")
        if member.get("kty") != "EC" or member.get("crv") != "P-256":
            raise InvalidKey("not an EC key on P-256")
        if member.get("use", "sig") != "sig" or member.get("alg", ALGORITHM) != ALGORITHM:
            raise InvalidKey("not a key for ES256 signatures")
        if not all(isinstance(value, str) and _COORDINATE.fullmatch(value) for value in (x, y)):
            raise InvalidKey("x or y is not a coordinate of P-256")
        try:
            jose_key = jwk.construct({"kty": "EC", "crv": "P-256", "x": x, "y": y}, ALGORITHM)
        except (JOSEError, ValueError) as exc:
            raise InvalidKey("the point is not on the curve") from exc
        return cls(kid, jose_key)


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
